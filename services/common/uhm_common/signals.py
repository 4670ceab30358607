"""Signals by the names that image configurations have for them."""

from __future__ import annotations

import signal

__all__ = ["signal_number"]


def signal_number(name: str) -> int:
    """The number of a signal given as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`; SIGTERM where it is empty or unknown."""
    if not name:
        return signal.SIGTERM
    if name.isdecimal():
        return int(name) if 0 < int(name) < signal.NSIG else signal.SIGTERM
    base, _, offset = name.upper().removeprefix("SIG").partition("+")
    number = getattr(signal, f"SIG{base}", None)
    if not isinstance(number, signal.Signals) or not (offset == "" or offset.isdecimal()):
        return signal.SIGTERM
    return int(number) + int(offset or 0)
