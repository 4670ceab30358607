"""One attempt at one publication, from the claim to its end in the database.

The image's disk is exported, the layers are hashed, and everything is put at the location in the order that its layout
says; what is there already is not sent again. Exports are the same byte for byte, so what a former attempt has sent of
one still counts. An object that is there was verified there before the next one goes, and the documents, which make the
image known, come last: whatever dies on the way, the index lists nothing that is not whole.

Errors that may pass (no answer, 5xx, what arrived damaged) leave the publication as it is, to be taken up after a
growing pause; others end it. The image's disk is leased until the publication has ended, so its layers cannot go.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from uhm_builder.errors import ContentMismatch, NoSuchImage, NoSuchStorage, WorkLost
from uhm_builder.export.options import SUFFIXES, Compression, DiskFormat, ExportOptions
from uhm_builder.images import Status
from uhm_builder.storage.content import Content
from uhm_builder.storage.index import renew_index
from uhm_builder.storage.layouts import DiskFile, Publishable, public
from uhm_builder.storage.objects import Resume
from uhm_builder.storage.publications import PublicationStatus, lease_holder
from uhm_builder.threads import in_thread
from uhm_common.errors import UhmError, Unavailable
from uhm_common.events import publication_progress_subject
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.export.exporter import ExportedDisk, Exporter
    from uhm_builder.images import Image
    from uhm_builder.storage.layouts import Upload
    from uhm_builder.storage.locations import Locations, Opened
    from uhm_builder.storage.publications import Publication, PublicationStore
    from uhm_builder.store import Claim, ImageStore
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.events import EventBus


__all__ = ["Publisher"]

log = get_logger()

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds before the second try, the third, …; the last one again and again."""
FLUSH_SECONDS = 0.2
FLUSHES_PER_RECORD = 5
ABANDON_SECONDS = 10.0


class Publisher:
    """Runs publications that were claimed."""

    def __init__(
        self,
        *,
        artifacts: ArtifactStore,
        images: ImageStore,
        publications: PublicationStore,
        locations: Locations,
        exporter: Exporter,
        events: EventBus,
        max_attempts: int,
    ) -> None:
        self._artifacts = artifacts
        self._images = images
        self._publications = publications
        self._locations = locations
        self._exporter = exporter
        self._events = events
        self._max_attempts = max_attempts

    async def publish(self, claim: Claim, publication: Publication) -> None:
        """Publishes, and notes how that ended. Raises WorkLost; a cancellation ends nothing."""
        try:
            await self._publish(claim, publication)
        except WorkLost:
            raise
        except (Unavailable, ContentMismatch) as error:
            await self._try_later(claim, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the publication has ended
            await self.fail(claim, _reason(publication, error))
        finally:
            await self.tidy(publication.id)
            await self._events.publish(publication_progress_subject(publication.id), {"changed": True})

    async def fail(self, claim: Claim, reason: str) -> None:
        """Ends a publication as failed. Raises WorkLost."""
        ended = {"status": PublicationStatus.FAILED, "reason": reason, "ended_at": time.time_ns()}
        await self._publications.record(claim, **ended)
        log.info("publication.failed", publication_id=claim.id, reason=reason, attempt=claim.attempt)

    async def tidy(self, publication_id: str) -> None:
        """Where a publication has ended: gives up what it began to upload, and the image's disk.

        An upload that cannot be given up now stays written down, and `PublicationUpkeep` calls this again.
        """
        publication = await self._publications.get(publication_id)
        if publication is None or not publication.status.ended:
            return
        if publication.uploads and await self._abandoned(publication):
            await self._publications.clear_uploads(publication_id)
        if publication.disk_digest:
            drop = partial(self._artifacts.drop_lease, publication.disk_digest, holder=lease_holder(publication_id))
            await in_thread(drop)

    async def _abandoned(self, publication: Publication) -> bool:
        """Gives up what a publication began to upload; False where that is to be tried again."""
        try:
            async with (
                asyncio.timeout(ABANDON_SECONDS),
                self._locations.open(publication.location, owner=publication.owner) as opened,
            ):
                for name, token in publication.uploads.items():
                    await opened.store.abandon(name, token)
        except NoSuchStorage:
            return True
        except (UhmError, TimeoutError) as error:
            log.info("publication.uploads_left", publication_id=publication.id, error=repr(error))
            return False
        return True

    async def _try_later(self, claim: Claim, error: UhmError) -> None:
        if claim.attempt >= self._max_attempts:
            await self.fail(claim, f"{error} It was tried {claim.attempt} times.")
            return
        pause = PAUSES[min(claim.attempt, len(PAUSES)) - 1]
        log.info("publication.waits", publication_id=claim.id, seconds=pause, reason=error.message)
        await self._publications.record(
            claim, reason=str(error), lease_until=time.time_ns() + int(pause * 1_000_000_000)
        )

    async def _publish(self, claim: Claim, publication: Publication) -> None:
        image = await self._held(claim, publication)
        async with self._locations.open(publication.location, owner=publication.owner) as opened:
            disk_format = DiskFormat(publication.format)
            reference = public(publication.reference)
            opened.layout.check(reference, format=disk_format)
            options = ExportOptions(
                format=disk_format, compression=Compression.ZSTD if disk_format is DiskFormat.QCOW2 else None
            )
            async with self._exporter.exported(image, options) as disk:
                plan = partial(self._uploads, opened, image, publication, disk)
                uploads = await in_thread(plan)
                await self._put_all(claim, publication, opened, uploads)
                document = uploads[-1]
                await renew_index(
                    opened.store, opened.layout, name=document.name, document=document.content.read(0, 1 << 30)
                )
        ended = {"status": PublicationStatus.PUBLISHED, "reason": "", "ended_at": time.time_ns()}
        await self._publications.record(claim, **ended)
        log.info("publication.published", publication_id=claim.id, reference=publication.reference)

    async def _held(self, claim: Claim, publication: Publication) -> Image:
        """The image, which keeps its disk from here on. Raises NoSuchImage."""
        image = await self._images.get(publication.image_id, owner=publication.owner)
        if image is None or image.status is not Status.READY:
            raise NoSuchImage(f"The image {publication.reference} was deleted.")
        if publication.disk_digest != image.disk_digest:
            await self._publications.record(claim, disk_digest=image.disk_digest)
        lease = partial(self._artifacts.take_lease, image.disk_digest, holder=lease_holder(publication.id))
        await in_thread(lease)
        return image

    def _uploads(
        self, opened: Opened, image: Image, publication: Publication, disk: ExportedDisk
    ) -> tuple[Upload, ...]:
        disk_format = DiskFormat(publication.format)
        layers = tuple((layer.diff_id, Content.of(self._artifacts.layer(layer.diff_id))) for layer in image.layers)
        return opened.layout.uploads(
            Publishable(
                reference=public(publication.reference),
                digest=image.digest,
                config=image.config,
                layers=layers,
                disk=DiskFile(
                    path=disk.path,
                    size=disk.size,
                    digest=disk.digest,
                    format=disk_format,
                    suffix=SUFFIXES[disk_format],
                ),
                published_at=datetime.now(UTC).replace(microsecond=0),
            )
        )

    async def _put_all(
        self, claim: Claim, publication: Publication, opened: Opened, uploads: tuple[Upload, ...]
    ) -> None:
        ledger = _Ledger(
            claim,
            publications=self._publications,
            events=self._events,
            uploads=dict(publication.uploads),
            total=sum(upload.content.size for upload in uploads),
        )
        await ledger.record()
        telling = asyncio.create_task(ledger.run())
        try:
            for upload in uploads:
                ledger.begin()
                await opened.store.put(
                    upload.name, upload.content, resume=ledger.resume(upload.name), report=ledger.report
                )
                ledger.end(upload.content.size)
            await ledger.record()
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling


class _Ledger:
    """How far an attempt has come: in the database now and then, on NATS more often, with tokens of uploads at once."""

    def __init__(
        self,
        claim: Claim,
        *,
        publications: PublicationStore,
        events: EventBus,
        uploads: dict[str, str],
        total: int,
    ) -> None:
        self._claim = claim
        self._publications = publications
        self._events = events
        self._uploads = uploads
        self._total = total
        self._ended = 0
        self._current = 0

    @property
    def done(self) -> int:
        """Bytes at the location."""
        return self._ended + self._current

    def begin(self) -> None:
        """An object is next."""
        self._current = 0

    def report(self, done: int) -> None:
        """How much of the object is there; from any thread."""
        self._current = done

    def end(self, size: int) -> None:
        """The object is there."""
        self._ended += size
        self._current = 0

    def resume(self, name: str) -> Resume:
        """Where the upload of an object is written down."""
        return _NotedResume(self, name, self._uploads.get(name, ""))

    async def keep(self, name: str, token: str) -> None:
        """Writes down a token, or that none is needed any more."""
        if token:
            self._uploads[name] = token
        else:
            self._uploads.pop(name, None)
        await self.record()

    async def record(self) -> None:
        """Writes it all down. Raises WorkLost."""
        await self._publications.record(
            self._claim, done_bytes=self.done, total_bytes=self._total, uploads=dict(self._uploads)
        )

    async def run(self) -> None:
        """Tells whoever watches, until cancelled."""
        told = recorded = -1
        for count in itertools.count():
            await asyncio.sleep(FLUSH_SECONDS)
            if told != self.done:
                told = self.done
                progress = {"done": told, "total": self._total}
                await self._events.publish(publication_progress_subject(self._claim.id), progress)
            if recorded != self.done and count % FLUSHES_PER_RECORD == 0:
                recorded = self.done
                with suppress(WorkLost, SQLAlchemyError, OSError):  # the next one will do
                    await self.record()


@dataclass(slots=True)
class _NotedResume(Resume):
    ledger: _Ledger
    name: str
    token: str

    async def keep(self, token: str) -> None:
        self.token = token
        await self.ledger.keep(self.name, token)


def _reason(publication: Publication, error: Exception) -> str:
    """What the user is told: our own errors as they are, anything else by a number that the log has."""
    if isinstance(error, UhmError):
        return str(error)
    correlation = uuid.uuid4().hex[:12]
    log.error("publication.broke", publication_id=publication.id, correlation_id=correlation, exc_info=error)
    return f"Something went wrong on our side. The log has the cause under {correlation}."
