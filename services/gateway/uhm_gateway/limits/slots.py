"""How many calls may be under way: what is over that is refused at once, since a queue only makes all of them late.

A call counts for the whole, for the service that it goes to, and for who made it. No service and no caller may have
more than a share of the whole: one that is slow, or greedy, leaves room for the others.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from uhm_common.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Overloaded", "Slots", "Taken"]

RETRY_SECONDS = 1.0


class Overloaded(Unavailable):
    """As many calls are under way as may be."""


@dataclass(slots=True)
class Taken:
    """A slot that a call has, as a context manager that gives it back."""

    _slots: Slots
    _shares: Sequence[tuple[str, float]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._slots.give_back(self._shares)


class Slots:
    """A bounded number of calls of one kind, such as "calls" or "streams", for the message."""

    def __init__(self, most: int, *, kind: str) -> None:
        self._most = most
        self._kind = kind
        self._taken = 0
        self._by_key: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many are under way."""
        return self._taken

    def take(self, shares: Sequence[tuple[str, float]]) -> Taken:
        """A slot that counts for these keys, each of which may have a share, up to 1, of all. Raises Overloaded."""
        if self._taken >= self._most:
            raise Overloaded(
                f"The gateway has {self._taken} {self._kind} under way, and takes no more.",
                hint="Try again in a moment.",
                retry_after=RETRY_SECONDS,
            )
        for key, share in shares:
            if self._by_key[key] >= self.share(share):
                raise Overloaded(
                    f"{self._by_key[key]} {self._kind} of {key} are under way, and there may be no more.",
                    hint="Try again in a moment.",
                    retry_after=RETRY_SECONDS,
                )
        self._taken += 1
        for key, _ in shares:
            self._by_key[key] += 1
        return Taken(self, shares)

    def share(self, share: float) -> int:
        """How many slots a share is: one at least."""
        return max(1, math.floor(self._most * share))

    def give_back(self, shares: Sequence[tuple[str, float]]) -> None:
        """Ends what `take` began; once for each."""
        self._taken -= 1
        for key, _ in shares:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
