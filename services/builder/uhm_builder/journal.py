"""What a build writes down as it goes: its stages and layers in the database, and a hint to whoever watches."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from uhm_builder.images import Stage
from uhm_common.phases import Stopwatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from uhm_builder.feed import Feed
    from uhm_builder.images import Layer
    from uhm_builder.store import Claim, ImageStore
    from uhm_common.phases import Phase

__all__ = ["Journal"]


class Journal:
    """The record of one attempt. Every write raises BuildLost when the attempt does not count any more."""

    def __init__(self, claim: Claim, *, store: ImageStore, feed: Feed) -> None:
        self._claim = claim
        self._store = store
        self._feed = feed
        self._watch = Stopwatch()
        self.layers: Sequence[Layer] = ()
        """What the image is made of, as far as it is known."""

    @property
    def stages(self) -> list[Stage]:
        """The stages that have ended, the last one possibly by an error."""
        return [
            Stage(
                name=phase.name,
                start_ms=round(phase.start_ms, 3),
                duration_ms=round(phase.duration_ms, 3),
                bytes=phase.bytes,
            )
            for phase in self._watch.phases
        ]

    @asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[Phase]:
        """Times a stage and records it, and the layers known by then, when it has ended well."""
        with self._watch.phase(name) as phase:
            yield phase
        await self._store.record(self._claim, stages=self.stages, layers=self.layers)
        await self._feed.changed()

    async def record_disk(self, digest: str) -> None:
        """Notes which disk the image will have."""
        await self._store.record(self._claim, disk_digest=digest)
