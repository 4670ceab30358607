"""The rate of the time stamp counter."""

from __future__ import annotations

import platform

import pytest

from uhm_guest.clock import measure_tsc_khz


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another architecture")
def test_two_measurements_agree() -> None:
    first, second = (measure_tsc_khz(seconds=0.05) for _ in range(2))
    assert first == pytest.approx(second, rel=2e-4)
    assert 500_000 < first < 10_000_000


def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(OSError, match="aarch64"):
        measure_tsc_khz()
