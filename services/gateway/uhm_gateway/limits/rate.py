"""Rates by key: how often one user, or one address, may ask.

The generic cell rate algorithm (ITU-T I.371), which is a token bucket that keeps one number: the time at which the
bucket will be full again. A key not seen for so long needs none, so that what is kept is bounded by who asked lately.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Buckets", "Rate"]

KEPT = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many a second in the long run, and so many at once after a pause."""

    per_second: float
    burst: int


class Buckets:
    """The buckets of all keys at one rate. Of more keys than are kept, those unseen for longest begin anew."""

    def __init__(self, rate: Rate, *, kept: int = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        """A rate of 0 is none at all."""
        self._interval = 1 / rate.per_second if rate.per_second > 0 else 0.0
        self._depth = self._interval * max(1, rate.burst)
        self._kept = kept
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str) -> float:
        """Takes one from a key's bucket; answers 0, or after how many seconds there will be one to take."""
        if not self._interval:
            return 0.0
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + self._interval
        # A rounding error less than the interval must not keep back the last of a full bucket.
        wait = full_at - now - self._depth
        if wait > self._interval * 1e-6:
            return wait
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drops the buckets that are full again, a few at a time, and the oldest where there are too many."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._kept:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return
