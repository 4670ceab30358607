"""What images take up: one user's share, and the whole store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from uhm_builder.collector import Collector
    from uhm_builder.quotas import Quota, Quotas
    from uhm_builder.store import ImageStore
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.database import Database

__all__ = ["Usage", "UsageMeter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes of layers are those of their blobs; bytes of the store are those that the file system has given it."""

    images: int
    building: int
    layer_bytes: int
    """Of the user's layers, each counted once."""
    unshared_bytes: int
    """Of those of them that no other user's image has."""
    reclaimable_bytes: int
    """Of what no image of anybody needs."""
    store_bytes: int
    free_bytes: int
    quota: Quota


class UsageMeter:
    """Reads rows and file sizes; nothing is kept between."""

    def __init__(
        self, *, artifacts: ArtifactStore, database: Database, store: ImageStore, collector: Collector, quotas: Quotas
    ) -> None:
        self._artifacts = artifacts
        self._database = database
        self._store = store
        self._collector = collector
        self._quotas = quotas

    async def of(self, owner: str) -> Usage:
        """What an owner's images take up."""
        async with self._database.read() as session:
            held = await self._store.holdings(session, owner)
        shared = await self._store.layers_of_others(owner)
        reclaimable = await self._collector.measure(await self._collector.unneeded())
        store_bytes, free_bytes = await in_thread(self._space)
        return Usage(
            images=held.images,
            building=held.building,
            layer_bytes=held.bytes,
            unshared_bytes=sum(size for diff_id, size in held.layers.items() if diff_id not in shared),
            reclaimable_bytes=reclaimable.bytes,
            store_bytes=store_bytes,
            free_bytes=free_bytes,
            quota=self._quotas.quota,
        )

    def _space(self) -> tuple[int, int]:
        self._artifacts.root.mkdir(parents=True, exist_ok=True)
        stored = sum(self._artifacts.size(artifact) for artifact in self._artifacts.stored())
        return stored, shutil.disk_usage(self._artifacts.root).free
