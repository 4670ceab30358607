"""What machines take of the host's memory when they have nothing to do."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bench.processes import pss_mib
from bench.rounds import launched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.contestants import Contestant, Start

__all__ = ["IDLE_SECONDS", "MACHINES", "Memory", "idle_memory"]

MACHINES = 10
IDLE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """MiB of PSS, the export daemon and spares apart."""

    machines: int
    total_mib: float
    mean_mib: float
    max_mib: float

    @classmethod
    def of(cls, starts: Sequence[Start]) -> Self:
        """Of machines that run."""
        taken = [pss_mib(start.machine["pid"]) for start in starts]
        return cls(
            machines=len(taken),
            total_mib=round(sum(taken), 1),
            mean_mib=round(statistics.mean(taken), 1),
            max_mib=round(max(taken), 1),
        )


def idle_memory(contestants: Sequence[Contestant]) -> dict[str, Memory]:
    """Some machines of each kind, each of which has served its page once and then rested."""
    found = {}
    for contestant in contestants:
        with launched(contestant, MACHINES) as starts:
            time.sleep(IDLE_SECONDS)
            found[contestant.name] = Memory.of(starts)
        sys.stderr.write(f"     {contestant.name} {found[contestant.name].mean_mib} MiB\n")
    return found
