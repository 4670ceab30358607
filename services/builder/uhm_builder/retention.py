"""What is kept: images until somebody deletes them or a rule does, and what they are made of until the collector does.

Deleting an image is deleting its row, with the event that tells of it. It is refused while a lease is on a disk that no
other image has: so a machine's image does not vanish under it. What the image was made of is then without use, or not,
which is for the collector to find out (`uhm_builder.collector`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_builder.announcements import announce_deleted
from uhm_builder.collector import Collected
from uhm_builder.errors import ImageInUse, StillBuilding
from uhm_builder.images import Status
from uhm_builder.storage.publications import LEASE_PREFIX
from uhm_builder.threads import in_thread
from uhm_common.artifacts import Artifact, Kind
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uhm_builder.collector import Collector
    from uhm_builder.contexts import Contexts
    from uhm_builder.images import Image
    from uhm_builder.store import ImageStore
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.database import Database
    from uhm_common.outbox import Outbox

__all__ = ["Retention", "Rules", "Swept"]

log = get_logger()

DAY_NS = 24 * 3600 * 1_000_000_000
FAILED_KEPT_NS = DAY_NS
ALIASES_KEPT_NS = 30 * DAY_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which images are deleted without being asked for; 0 switches a rule off."""

    keep_per_name: int = 0
    """As many of each repository name and user, the newest."""
    untagged_days: int = 0
    """Those that lost their tag so long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Images that were deleted, by id, and what was freed."""

    images: tuple[str, ...]
    collected: Collected


class Retention:
    """Deletes images, by request and by rule."""

    def __init__(
        self,
        *,
        artifacts: ArtifactStore,
        database: Database,
        store: ImageStore,
        outbox: Outbox,
        contexts: Contexts,
        collector: Collector,
        rules: Rules,
    ) -> None:
        self._artifacts = artifacts
        self._database = database
        self._store = store
        self._outbox = outbox
        self._contexts = contexts
        self._collector = collector
        self._rules = rules

    async def delete(self, image: Image) -> int:
        """Deletes an image; answers the bytes of what no image needs now. Raises StillBuilding, ImageInUse.

        They are given back after the grace period.
        """
        await self._delete(image)
        parts = {Artifact(kind=Kind.LAYER, digest=layer.diff_id) for layer in image.layers}
        parts.add(Artifact(kind=Kind.DISK, digest=image.disk_digest))
        freed = await self._collector.measure(parts & await self._collector.unneeded())
        await self._collector.collect()
        return freed.bytes

    async def delete_all(self, images: Sequence[Image]) -> None:
        """Deletes images, and then what no image needs. Raises StillBuilding; ImageInUse where some had to stay."""
        deleted = await self._delete_unused(images)
        await self._collector.collect()
        if len(deleted) < len(images):
            raise ImageInUse(f"{len(images) - len(deleted)} image(s) are used by machines, or being published.")

    async def collect(
        self, *, owner: str, untagged: bool = False, older_than_ns: int = 0, dry_run: bool = False
    ) -> Swept:
        """Frees at once whatever no image needs; with `untagged` deletes the owner's images without a tag first."""
        before = time.time_ns() - older_than_ns
        images = await self._store.untagged(before=before, owner=owner) if untagged else []
        if dry_run:
            ids = tuple([image.id for image in images if not await self._holders(image)])
            would = await self._collector.measure(await self._collector.unneeded(without=ids))
            return Swept(images=ids, collected=would)
        deleted = await self._delete_unused(images)
        return Swept(images=deleted, collected=await self._collector.collect(at_once=True))

    async def sweep_everything(self) -> None:
        """What a worker does at its start and now and then: the rules, and leftovers of all kinds."""
        await in_thread(self._artifacts.sweep_staging)
        await self._contexts.sweep()
        now = time.time_ns()
        await self._store.forget(ended_before=now - FAILED_KEPT_NS, aliases_before=now - ALIASES_KEPT_NS)
        await self._apply_rules(now)
        await self.sweep()

    async def sweep(self) -> None:
        """Frees what has been without use for the grace period."""
        collected = await self._collector.collect()
        if collected != Collected():
            log.info("store.swept", bytes=collected.bytes, layers=collected.layers, disks=collected.disks)

    async def _apply_rules(self, now: int) -> None:
        doomed: list[Image] = []
        if self._rules.untagged_days:
            doomed += await self._store.untagged(before=now - self._rules.untagged_days * DAY_NS)
        if self._rules.keep_per_name:
            doomed += await self._store.surplus(keep=self._rules.keep_per_name)
        if deleted := await self._delete_unused(doomed):
            log.info("images.retired", images=deleted)

    async def _delete_unused(self, images: Sequence[Image]) -> tuple[str, ...]:
        """Deletes those that are not used; answers their ids."""
        deleted = []
        for image in images:
            try:
                await self._delete(image)
            except ImageInUse:
                continue
            deleted.append(image.id)
        return tuple(deleted)

    async def _delete(self, image: Image) -> None:
        if image.status is Status.BUILDING:
            raise StillBuilding(f"The image {image.id} is being built.", hint="Cancel it first, or wait.")
        async with self._collector.undisturbed():
            if holders := await self._holders(image):
                raise _in_use(holders)
            await self._delete_row(image.id)

    async def _holders(self, image: Image) -> list[str]:
        """Who holds a lease on its disk, where no other image has the same one."""
        if not image.disk_digest or set(await self._store.disk_users(image.disk_digest)) - {image.id}:
            return []
        return self._artifacts.lease_holders(image.disk_digest)

    async def _delete_row(self, image_id: str) -> None:
        async with self._database.write() as session:
            deleted = await self._store.delete(session, image_id)
            if deleted is not None and deleted.status is Status.READY:  # of others nobody has heard
                await announce_deleted(self._outbox, session, deleted)
        self._outbox.wake()


def _in_use(holders: list[str]) -> ImageInUse:
    publications = [holder.removeprefix(LEASE_PREFIX) for holder in holders if holder.startswith(LEASE_PREFIX)]
    if publications:
        return ImageInUse(
            f"The image is being published: {', '.join(publications)}.",
            hint="Wait, or cancel that with `uhm storage cancel ID`.",
        )
    return ImageInUse(
        f"The image is used by {len(holders)} machine(s): {', '.join(holder[:12] for holder in holders)}.",
        hint="Delete them first with `uhm rm -f`.",
    )
