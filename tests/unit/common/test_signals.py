"""Signals by name."""

from __future__ import annotations

import pytest

from uhm_common.signals import signal_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("", 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("SIGNONE", 15), ("SIG_DFL", 15),
        ("0", 15), ("400", 15), ("SIGRTMIN+x", 15),
    ],
)  # fmt: skip
def test_stop_signals(name: str, number: int) -> None:
    assert signal_number(name) == number
