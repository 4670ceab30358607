"""Layers: tar archives made into EROFS blobs, each once, whoever asks for it and however many at a time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import ContentMismatch
from uhm_builder.images import Layer
from uhm_builder.mkfs import Bounds, conversion, space_checked
from uhm_builder.threads import in_thread, locked_when_free

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from uhm_builder.mkfs import Conversion
    from uhm_common.artifacts import ArtifactStore

    Fill = Callable[[Conversion], Awaitable[None]]
    Write = Callable[[Path], Awaitable[None]]

__all__ = ["LayerMaker"]

MAX_ENTRIES = 1_000_000


class LayerMaker:
    """Makes blobs in the store. One per process: it bounds how many are made at once."""

    def __init__(
        self, store: ArtifactStore, *, mkfs: str, max_bytes: int, parallel: int, max_entries: int = MAX_ENTRIES
    ) -> None:
        """`max_bytes` bounds a layer's uncompressed size, `max_entries` its files, directories and links."""
        self._store = store
        self._mkfs = mkfs
        self._bounds = Bounds(max_bytes=max_bytes, max_entries=max_entries)
        self._slots = asyncio.Semaphore(parallel)

    def found(self, diff_id: str, *, digest: str = "") -> Layer | None:
        """The layer, where its blob is in the store."""
        try:
            size = self._store.layer(diff_id).stat().st_size
        except FileNotFoundError:
            return None
        return Layer(diff_id=diff_id, digest=digest, size=size, reused=True)

    async def make(self, diff_id: str, fill: Fill, *, digest: str = "") -> Layer:
        """Answers the layer, made by `fill` where its blob is not in the store.

        `fill` writes the uncompressed archive. Of several who want the same layer one makes it, the others wait; when
        that one fails, the next one tries. Raises ContentMismatch where what was written has another digest, NoSpace,
        and what `fill` raises.
        """
        return await self.take(diff_id, partial(self._make_blob, diff_id, fill), digest=digest)

    async def take(self, diff_id: str, write: Write, *, digest: str = "") -> Layer:
        """Like `make`, with a `write` that writes the blob itself, whole and verified, to the path that it is given."""
        if layer := self.found(diff_id, digest=digest):
            return layer
        final = self._store.layer(diff_id)
        with space_checked(final):
            async with locked_when_free(partial(self._store.making, final, blocking=False)), self._slots:
                if layer := self.found(diff_id, digest=digest):
                    return layer
                with self._store.stage() as stage:
                    blob = stage / "layer.erofs"
                    await write(blob)
                    await in_thread(partial(self._store.commit, blob, final))
                return Layer(diff_id=diff_id, digest=digest, size=final.stat().st_size)

    async def make_unknown(self, wanted: Collection[str], fill: Fill) -> Layer | None:
        """Answers the layer that `fill` has written, if it is one of those wanted (diffIDs)."""
        with space_checked(self._store.root / "layers"):
            async with self._slots:
                with self._store.stage() as stage:
                    blob = stage / "layer.erofs"
                    diff_id = await self._convert(blob, fill)
                    if diff_id not in wanted:
                        return None
                    final = self._store.layer(diff_id)
                    await in_thread(partial(self._store.commit, blob, final))
        return Layer(diff_id=diff_id, size=final.stat().st_size)

    async def _convert(self, blob: Path, fill: Fill) -> str:
        with conversion(self._mkfs, blob, bounds=self._bounds) as running:
            await fill(running)
            return await in_thread(running.finish, interrupt=running.interrupt)

    async def _make_blob(self, diff_id: str, fill: Fill, blob: Path) -> None:
        made = await self._convert(blob, fill)
        if made != diff_id:
            raise ContentMismatch(
                f"A layer's content is {made}, but the image's configuration says {diff_id}.",
                hint="The image is damaged where it comes from.",
            )
