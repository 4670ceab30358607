"""Contestants against each other, one at a time or several at once; all meet the same noise, and none another's."""

from __future__ import annotations

import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.times import Times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.contestants import Contestant, Start
    from bench.pauses import Pauses

__all__ = ["alternate", "launch", "launched", "remove_all"]


def alternate(contestants: Sequence[Contestant], *, rounds: int, pauses: Pauses, at_once: int = 1) -> dict[str, Times]:
    """Rounds in which each contestant has one turn, and which begin with a different one each time.

    A turn is `at_once` starts at the same moment; what was started is removed when all have come to their first byte.
    """
    starts: defaultdict[str, list[Start]] = defaultdict(list)
    for number in range(rounds):
        first = number % len(contestants)
        shown = []
        for contestant in [*contestants[first:], *contestants[:first]]:
            with launched(contestant, at_once) as turn:
                starts[contestant.name] += turn
            pauses.rest()
            shown.append(f"{contestant.name} {_last(turn)}")
        sys.stderr.write(f"{number + 1:3}: {', '.join(shown)}\n")
    return {contestant.name: Times.of(starts[contestant.name]) for contestant in contestants}


@contextmanager
def launched(contestant: Contestant, count: int) -> Iterator[list[Start]]:
    """So many starts at the same moment, all come to their first byte or given up; removed at the end."""
    starts = launch(contestant, count)
    try:
        yield starts
    finally:
        remove_all(contestant, starts)


def launch(contestant: Contestant, count: int) -> list[Start]:
    """So many starts at the same moment. Raises what one of them raises, with the others removed."""
    if count == 1:
        return [contestant.start()]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(contestant.start) for _ in range(count)]
    errors = [error for future in futures if (error := future.exception())]
    starts = [future.result() for future in futures if not future.exception()]
    if errors:
        remove_all(contestant, starts)
        raise errors[0]
    return starts


def remove_all(contestant: Contestant, starts: Sequence[Start]) -> None:
    """Removes all of them at the same moment."""
    with ThreadPoolExecutor(max(1, len(starts))) as pool:
        list(pool.map(contestant.remove, starts))


def _last(turn: Sequence[Start]) -> str:
    """How long it took until the last one came."""
    taken = [start.seconds for start in turn]
    return "never" if None in taken else f"{max(filter(None, taken)):.3f} s"
