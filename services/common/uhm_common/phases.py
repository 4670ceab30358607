"""Timing that is shown to users: named phases in milliseconds since a common start."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Phase", "Stopwatch"]


@dataclass(slots=True)
class Phase:
    """A named stretch of time; `bytes` is what it wrote, where that means something."""

    name: str
    start_ms: float
    duration_ms: float = 0.0
    bytes: int = 0


@dataclass(slots=True)
class Stopwatch:
    """Collects phases; the clock starts when it is made."""

    phases: list[Phase] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def elapsed_ms(self) -> float:
        """Milliseconds since the clock was started."""
        return (time.monotonic() - self.started) * 1000

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Times the block; a block that raises is recorded too, up to where it came."""
        phase = Phase(name, self.elapsed_ms())
        self.phases.append(phase)
        try:
            yield phase
        finally:
            phase.duration_ms = self.elapsed_ms() - phase.start_ms
