"""One attempt at one build, from the claim to its end in the database."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from uhm_builder.announcements import announce_deleted, announce_ready
from uhm_builder.errors import BuildLost
from uhm_builder.feed import Feed
from uhm_builder.images import Image, Status
from uhm_builder.journal import Journal
from uhm_builder.storage.publications import NewPublication
from uhm_common.errors import UhmError
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.outputs import Outputs
    from uhm_builder.pipeline import Made, Pipeline
    from uhm_builder.quotas import Quotas
    from uhm_builder.sources.chooser import Sources
    from uhm_builder.storage.publications import PublicationStore
    from uhm_builder.store import Claim, ImageStore
    from uhm_common.database import Database
    from uhm_common.events import EventBus
    from uhm_common.outbox import Outbox

__all__ = ["Builder"]

log = get_logger()


class Builder:
    """Runs builds that were claimed."""

    def __init__(
        self,
        *,
        database: Database,
        store: ImageStore,
        outbox: Outbox,
        events: EventBus,
        outputs: Outputs,
        sources: Sources,
        pipeline: Pipeline,
        quotas: Quotas,
        publications: PublicationStore,
    ) -> None:
        self._database = database
        self._store = store
        self._outbox = outbox
        self._events = events
        self._outputs = outputs
        self._sources = sources
        self._pipeline = pipeline
        self._quotas = quotas
        self._publications = publications

    async def build(self, claim: Claim, image: Image) -> None:
        """Makes the image and ends the build as ready or failed. Raises BuildLost; a cancellation ends nothing."""
        feed = Feed(image.id, events=self._events)
        journal = Journal(claim, store=self._store, feed=feed)
        sending = asyncio.create_task(feed.run())
        try:
            made = await self._make(image, journal, feed)
            await self._finish(claim, image, made, journal)
        except BuildLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the build has ended
            await self.fail(claim, _reason(image, error), journal=journal)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            await feed.ended()

    async def _make(self, image: Image, journal: Journal, feed: Feed) -> Made:
        source = self._sources.open(image, feed)
        try:
            return await self._pipeline.run(source, journal)
        finally:
            await source.close()
            if feed.kept:
                await self._outputs.keep(image.id, feed.kept)

    async def _finish(self, claim: Claim, image: Image, made: Made, journal: Journal) -> None:
        now = time.time_ns()
        image = replace(image, reference=image.reference or made.reference)
        values = {
            "reference": image.reference,
            "status": Status.READY,
            "ended_at": now,
            "digest": made.digest,
            "disk_digest": made.disk_digest,
            "layers": [asdict(layer) for layer in made.layers],
            "stages": [asdict(stage) for stage in journal.stages],
            "config": asdict(made.config),
        }
        async with self._database.write() as session:
            await self._quotas.admit_layers(session, owner=image.owner, layers=made.layers)
            await self._store.finish(session, claim, values)
            replaced = await self._store.take_over(
                session, owner=image.owner, image_id=image.id, reference=image.reference, disk=made.disk_digest, now=now
            )
            for former in replaced:  # first, so that whoever hears of both ends with the disk being there
                await announce_deleted(self._outbox, session, former)
            await announce_ready(self._outbox, session, image, made)
            for location in dict.fromkeys(image.publish):
                new = NewPublication(owner=image.owner, image_id=image.id, reference=image.reference, location=location)
                await self._publications.request(session, new, outbox=self._outbox)
        self._outbox.wake()
        log.info("build.ready", build_id=image.id, reference=image.reference, attempt=claim.attempt)

    async def fail(self, claim: Claim, reason: str, *, journal: Journal | None = None) -> None:
        """Ends a build as failed. Raises BuildLost."""
        values = {"status": Status.FAILED, "reason": reason, "ended_at": time.time_ns()}
        if journal is not None:
            values["stages"] = [asdict(stage) for stage in journal.stages]
        async with self._database.write() as session:
            await self._store.finish(session, claim, values)
        log.info("build.failed", build_id=claim.id, reason=reason, attempt=claim.attempt)


def _reason(image: Image, error: Exception) -> str:
    """What the user is told: our own errors as they are, anything else by a number that the log has."""
    if isinstance(error, UhmError):
        return str(error)
    correlation = uuid.uuid4().hex[:12]
    log.error("build.broke", build_id=image.id, correlation_id=correlation, exc_info=error)
    return f"Something went wrong on our side. The log has the cause under {correlation}."
