"""A bounded pool of what lives in appliances: launched when asked for, kept warm for a while, one user at a time.

To launch an appliance takes seconds, a call in it milliseconds, and who looks into a disk once mostly looks again. So
what was launched for a key stays until it has been idle for some time, or until its place is needed: the one that was
idle longest goes first. What was lost in use (killed on a timeout, or its kernel died of a hostile disk) is never
lent again. Those who find no place wait in a queue that has bounds, in number and in time.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from uhm_builder.appliance import ApplianceLost
from uhm_builder.errors import AppliancesBusy
from uhm_builder.threads import in_thread
from uhm_common.errors import UhmError
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    Key = tuple[str, ...]

__all__ = ["Appliances", "Bounds"]

Lent = TypeVar("Lent")
log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a pool may take up."""

    at_once: int
    """Appliances that exist at a time."""
    waiting: int = 32
    """Users that may wait for one."""
    patience_seconds: float = 60
    """How long each of them waits."""
    idle_seconds: float = 60
    """How long what nobody uses is kept."""


@dataclass(slots=True, eq=False)
class _Place(Generic[Lent]):
    """One of the appliances; None is lent while it is not launched."""

    key: Key
    lent: Lent | None = None
    context: AbstractContextManager[Lent] | None = None
    busy: bool = True
    unwanted: bool = False
    idle_since: float = field(default_factory=time.monotonic)


class Appliances(Generic[Lent]):
    """The pool; for one event loop. `run` belongs into its background, and ends everything when it is cancelled."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._places: list[_Place[Lent]] = []
        self._changed = asyncio.Condition()
        self._waiting = 0

    @asynccontextmanager
    async def use(self, key: Key, launch: Callable[[], AbstractContextManager[Lent]]) -> AsyncIterator[Lent]:
        """Lends what lives under a key, made by `launch`, a blocking context manager, where it is not there.

        Raises AppliancesBusy where no place became free, and what `launch` raises.
        """
        place = await self._take(key)
        try:
            if place.key != key:  # another's, who was idle longest
                place.key = key
                await _end(place)
            if place.lent is None:
                place.lent = await self._launched(place, launch)
            yield place.lent
        except ApplianceLost:
            place.unwanted = True
            raise
        finally:
            await asyncio.shield(self._give_back(place))

    async def forget(self, unwanted: Callable[[Key], bool]) -> None:
        """Ends what lives under such keys: at once where it is idle, else after its use."""
        async with self._changed:
            found = [place for place in self._places if unwanted(place.key)]
            for place in found:
                place.unwanted = True
            idle = [place for place in found if not place.busy]
            for place in idle:
                place.busy = True
        for place in idle:
            await self._give_back(place)

    async def run(self) -> None:
        """Ends what has been idle for long, until it is cancelled; then it ends all."""
        try:
            while True:
                await asyncio.sleep(self._bounds.idle_seconds / 4)
                oldest = time.monotonic() - self._bounds.idle_seconds
                for place in [each for each in self._places if not each.busy and each.idle_since < oldest]:
                    place.busy = place.unwanted = True
                    await self._give_back(place)
        finally:
            for place in self._places:
                await _end(place)

    async def _take(self, key: Key) -> _Place[Lent]:
        """A place that is the caller's alone: the key's, an empty one, or one that another key has to leave."""
        async with self._changed:
            return self._place_now(key) or await self._place_later(key)

    async def _place_later(self, key: Key) -> _Place[Lent]:
        if self._waiting >= self._bounds.waiting:
            raise _busy(f"{self._waiting} others wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._bounds.patience_seconds):
                while True:
                    await self._changed.wait()
                    if place := self._place_now(key):
                        return place
        except TimeoutError:
            raise _busy(f"none became free within {self._bounds.patience_seconds:g} s") from None
        finally:
            self._waiting -= 1

    def _place_now(self, key: Key) -> _Place[Lent] | None:
        """The key's own place, a new one, or the one that has been idle longest; None where the caller must wait."""
        idle = [place for place in self._places if not place.busy]
        own = [place for place in self._places if place.key == key and not place.unwanted]
        if own:
            chosen = own[0] if own[0] in idle else None
        elif len(self._places) < self._bounds.at_once:
            chosen = _Place(key)
            self._places.append(chosen)
        else:
            chosen = min(idle, key=lambda place: place.idle_since, default=None)
        if chosen is not None:
            chosen.busy = True
        return chosen

    async def _launched(self, place: _Place[Lent], launch: Callable[[], AbstractContextManager[Lent]]) -> Lent:
        context = launch()

        def enter() -> Lent:
            lent = context.__enter__()
            place.context = context  # from here on it must be left, even if nobody wants it any more
            return lent

        begun = time.monotonic()
        lent = await in_thread(enter)
        log.info("appliance.launched", key=str(place.key), ms=round((time.monotonic() - begun) * 1000))
        return lent

    async def _give_back(self, place: _Place[Lent]) -> None:
        if place.unwanted or place.lent is None:
            await _end(place)
        async with self._changed:
            if place.lent is None and place in self._places:
                self._places.remove(place)
            place.busy, place.idle_since = False, time.monotonic()
            self._changed.notify_all()


async def _end(place: _Place[Any]) -> None:
    """Ends what lives there."""
    context, place.context, place.lent = place.context, None, None
    if context is not None:
        with suppress(UhmError):  # it may be lost already, and nobody needs it any more
            await in_thread(lambda: context.__exit__(None, None, None))


def _busy(why: str) -> AppliancesBusy:
    return AppliancesBusy(
        f"All appliances that look into images are in use, and {why}.",
        hint="Try again in a moment; UHM_APPLIANCES says how many there may be.",
    )
