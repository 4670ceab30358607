"""What many starts of one kind took."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bench.page import GIVE_UP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.contestants import Start

__all__ = ["Times", "percentile"]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds; `phases_ms` are medians of what the machines say of themselves."""

    p50: float
    p95: float
    never: int
    """How many never came to their page; they count in no percentile."""
    seconds: list[float]
    phases_ms: dict[str, float]

    @classmethod
    def of(cls, starts: Iterable[Start]) -> Self:
        """Sums up starts."""
        starts = list(starts)
        seconds = [start.seconds for start in starts if start.seconds is not None]
        phases: defaultdict[str, list[float]] = defaultdict(list)
        for start in starts:
            for phase in start.machine.get("phases", []):
                phases[phase["name"]].append(phase.get("duration_ms", 0.0))
        counted = seconds or [GIVE_UP_SECONDS]
        return cls(
            p50=round(statistics.median(counted), 3),
            p95=round(percentile(counted, 95), 3),
            never=len(starts) - len(seconds),
            seconds=[round(value, 4) for value in seconds],
            phases_ms={name: round(statistics.median(taken), 1) for name, taken in phases.items()},
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the least value that at least so many percent do not exceed."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
