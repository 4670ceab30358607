"""What a worker does for publications beside publishing: lost messages, and what ended ones have left behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from uhm_builder.storage.publications import LEASE_PREFIX
from uhm_builder.threads import in_thread
from uhm_builder.worker.lost import ask_again
from uhm_common.errors import UhmError
from uhm_common.events import PUBLICATIONS_REQUESTED, PUBLICATIONS_STREAM
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.storage.publications import PublicationStore
    from uhm_builder.storage.publisher import Publisher
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.database import Database
    from uhm_common.events import EventBus
    from uhm_common.outbox import Outbox

__all__ = ["PublicationUpkeep"]

log = get_logger()

KEPT_NS = 30 * 24 * 3600 * 1_000_000_000


class PublicationUpkeep:
    """Background work of one worker."""

    def __init__(
        self,
        *,
        artifacts: ArtifactStore,
        database: Database,
        publications: PublicationStore,
        publisher: Publisher,
        outbox: Outbox,
        events: EventBus,
        lost_after_seconds: float,
    ) -> None:
        self._artifacts = artifacts
        self._database = database
        self._publications = publications
        self._publisher = publisher
        self._outbox = outbox
        self._events = events
        self._lost_after = lost_after_seconds

    async def run(self) -> None:
        """Goes on until cancelled; whatever fails is logged and tried again."""
        while True:
            try:
                await self.tidy()
                await self._ask_again()
            except (SQLAlchemyError, OSError, UhmError) as error:
                log.warning("upkeep.failed", error=repr(error))
            await asyncio.sleep(self._lost_after / 2)

    async def tidy(self) -> None:
        """Gives up uploads and leases of publications that ended while nobody ran them; forgets old ones."""
        for publication in await self._publications.untidy():
            await self._publisher.tidy(publication.id)
        for disk, publication_id in await in_thread(self._leases):
            holder = await self._publications.get(publication_id)
            if holder is None or holder.status.ended:
                self._artifacts.drop_lease(disk, holder=f"{LEASE_PREFIX}{publication_id}")
        await self._publications.forget(ended_before=time.time_ns() - KEPT_NS)

    def _leases(self) -> list[tuple[str, str]]:
        """Disks and the publications that hold them."""
        found = self._artifacts.root.glob(f"disks/*/leases/{LEASE_PREFIX}*")
        return [(path.parent.parent.name, path.name.removeprefix(LEASE_PREFIX)) for path in found]

    async def _ask_again(self) -> None:
        await ask_again(
            self._publications.publishing,
            stream=PUBLICATIONS_STREAM,
            subject=PUBLICATIONS_REQUESTED,
            event="publication.asked_again",
            database=self._database,
            outbox=self._outbox,
            events=self._events,
            lost_after_seconds=self._lost_after,
        )
