"""The pause before each turn, and whether the host was quiet in it: figures of a host that was not are worth less."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Pauses"]

# Half a second after a start the service prepares a spare machine for the next, which must be over by the next turn.
PAUSE_SECONDS = 1.5
_LISTEN_SECONDS = 0.3
_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)


@dataclass(frozen=True)
class Pauses:
    """Pauses, all equally long, and how busy the cores were at the end of each: from 0 to 1."""

    loads: list[float] = field(default_factory=list)

    def rest(self) -> None:
        """One pause."""
        time.sleep(PAUSE_SECONDS - _LISTEN_SECONDS)
        all_before, idle_before = _ticks()
        time.sleep(_LISTEN_SECONDS)
        all_after, idle_after = _ticks()
        self.loads.append(1 - (idle_after - idle_before) / max(1, all_after - all_before))

    @property
    def load(self) -> float:
        """The median; 0 where there was no pause."""
        return round(statistics.median(self.loads or [0.0]), 3)


def _ticks() -> tuple[int, int]:
    """Of all cores together, since the host booted: all, and the idle ones."""
    ticks = [int(word) for word in _STAT.read_text().partition("\n")[0].split()[1:]]
    return sum(ticks[:8]), sum(ticks[_IDLE])
