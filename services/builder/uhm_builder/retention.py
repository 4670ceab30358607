"""What is kept: images until they are deleted, layers and disks while an image is made of them.

Deleting goes from the row, with the event that tells of it, to the disk to the layers. A crash on the way leaves
things that no row names, and the next sweep finds them; it never leaves a row whose disk is gone. A build writes the
layers and the disk that it will need into its row before it makes them, and holds `in_use()` until it is ready.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uhm_builder.announcements import announce_deleted
from uhm_builder.disk import load_disk
from uhm_builder.errors import ImageInUse, StillBuilding
from uhm_builder.images import Status
from uhm_builder.threads import entered, in_thread, locked_when_free
from uhm_common.errors import NotFound
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.contexts import Contexts
    from uhm_builder.images import Image
    from uhm_builder.store import ImageStore
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.database import Database
    from uhm_common.outbox import Outbox

__all__ = ["Retention"]

log = get_logger()

SWEEP_PATIENCE_SECONDS = 1.0
DAY_NS = 24 * 3600 * 1_000_000_000
FAILED_KEPT_NS = DAY_NS
ALIASES_KEPT_NS = 30 * DAY_NS


class Retention:
    """Deletes images, and sweeps what nobody needs."""

    def __init__(
        self, *, artifacts: ArtifactStore, database: Database, store: ImageStore, outbox: Outbox, contexts: Contexts
    ) -> None:
        self._artifacts = artifacts
        self._database = database
        self._store = store
        self._outbox = outbox
        self._contexts = contexts

    async def delete(self, image: Image) -> int:
        """Deletes an image; answers the bytes freed. Raises StillBuilding, ImageInUse."""
        if image.status is Status.BUILDING:
            raise StillBuilding(f"The image {image.id} is being built.", hint="Cancel it first, or wait.")
        freed = 0
        async with entered(self._artifacts.disks(exclusive=True)):
            others = set(await self._store.disk_users(image.disk_digest)) - {image.id} if image.disk_digest else set()
            last = bool(image.disk_digest) and not others
            holders = self._artifacts.lease_holders(image.disk_digest) if last else []
            if holders:
                raise ImageInUse(
                    f"The image is used by {len(holders)} machine(s): {', '.join(holder[:12] for holder in holders)}.",
                    hint="Delete them first with `uhm rm -f`.",
                )
            await self._delete_row(image.id)
            if last:
                freed += await in_thread(lambda: self._delete_disk(image.disk_digest))
        return freed + await self.sweep(patience=SWEEP_PATIENCE_SECONDS)

    async def _delete_row(self, image_id: str) -> None:
        async with self._database.write() as session:
            deleted = await self._store.delete(session, image_id)
            if deleted is not None and deleted.status is Status.READY:  # of others nobody has heard
                await announce_deleted(self._outbox, session, deleted)
        self._outbox.wake()

    async def sweep(self, *, patience: float = 0) -> int:
        """Deletes disks and layers that no image needs; answers the bytes freed.

        Does nothing while a build runs; with `patience` it waits so many seconds for one, or for another sweep, to end.
        """
        try:
            async with (
                locked_when_free(self._artifacts.no_builds, patience=patience),
                entered(self._artifacts.disks(exclusive=True)),
            ):
                diff_ids, disks = await self._store.in_use()
                return await in_thread(lambda: self._sweep(diff_ids, disks))
        except BlockingIOError:
            return 0

    async def sweep_everything(self) -> None:
        """What a worker does at its start and now and then: leftovers of crashes, old uploads, old failures."""
        await in_thread(self._artifacts.sweep_staging)
        await self._contexts.sweep()
        now = time.time_ns()
        await self._store.forget(ended_before=now - FAILED_KEPT_NS, aliases_before=now - ALIASES_KEPT_NS)
        if freed := await self.sweep():
            log.info("store.swept", bytes=freed)

    def _sweep(self, diff_ids: set[str], disks: set[str]) -> int:
        freed = 0
        for path in self._artifacts.root.glob("disks/*"):
            digest = f"sha256:{path.name}"
            if digest in disks:
                continue
            if self._artifacts.lease_holders(digest):
                diff_ids |= self._layers_of(digest)
            else:
                freed += self._delete_disk(digest)
        return freed + self._artifacts.delete_layers(keep=diff_ids)

    def _delete_disk(self, digest: str) -> int:
        size = sum(file.stat().st_blocks * 512 for file in self._artifacts.disk(digest).rglob("*"))
        self._artifacts.delete_disk(digest)
        return size

    def _layers_of(self, digest: str) -> set[str]:
        try:
            return set(load_disk(self._artifacts, digest).layers)
        except NotFound:
            return set()
