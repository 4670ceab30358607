"""When the parts of a start happened, on one clock.

The host knows when it asked; the guest stamps its events with its own clock, which began at an unknown moment. An
event is heard of at some time after it happened, and the one heard of fastest tells the clocks' distance best.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from uhm_machines.machine import Phase

if TYPE_CHECKING:
    from uhm_machines.channel import GuestEvent

__all__ = ["Mark", "Timeline"]


class Mark(StrEnum):
    """Moments of a start; those of the guest have the names of its events."""

    ASKED = "asked"
    PREPARED = "prepared"
    SPAWNED = "spawned"
    RESTORED = "restored"
    INIT = "init"
    STARTED = "started"
    FIRST_OUTPUT = "first_output"
    READY = "ready"


_OF_GUEST: Final = {mark.value: mark for mark in (Mark.INIT, Mark.STARTED, Mark.FIRST_OUTPUT, Mark.READY)}
_PHASES: Final = (
    ("prepare", (Mark.ASKED,), Mark.PREPARED),
    ("spawn", (Mark.PREPARED,), Mark.SPAWNED),
    ("restore", (Mark.SPAWNED,), Mark.RESTORED),
    ("kernel", (Mark.SPAWNED,), Mark.INIT),
    ("init", (Mark.INIT, Mark.RESTORED), Mark.STARTED),
    ("first_output", (Mark.STARTED, Mark.RESTORED), Mark.FIRST_OUTPUT),
    ("listening", (Mark.STARTED,), Mark.READY),
)
"""Each phase with the marks that it lies between; it begins at the first of several that there is."""


@dataclass(slots=True)
class Timeline:
    """Collects the marks of one start. The clock is `time.monotonic`, in seconds."""

    asked: float = field(default_factory=time.monotonic)
    _host: dict[Mark, float] = field(default_factory=dict)
    _guest: dict[Mark, float] = field(default_factory=dict)
    _offset: float = float("inf")

    def mark(self, mark: Mark) -> None:
        """Notes that the host has come so far, now."""
        self._host[mark] = time.monotonic()

    def hear(self, event: GuestEvent, *, at: float) -> None:
        """Notes a guest's event that was heard of `at` a moment of the host's clock; the first of a name counts."""
        self._offset = min(self._offset, at - event.time)
        if mark := _OF_GUEST.get(event.name):
            self._guest.setdefault(mark, event.time)

    def phases(self) -> tuple[Phase, ...]:
        """The phases that have both their ends, in order."""
        times = {Mark.ASKED: self.asked} | self._host
        times |= {mark: moment + self._offset for mark, moment in self._guest.items()}
        found = []
        for name, firsts, last in _PHASES:
            first = next((mark for mark in firsts if mark in times), None)
            if first is not None and last in times:
                found.append(
                    Phase(
                        name=name,
                        start_ms=round((times[first] - self.asked) * 1000, 3),
                        duration_ms=round(max(0.0, times[last] - times[first]) * 1000, 3),
                    )
                )
        return tuple(found)
