"""An image from a storage location, where it lies as EROFS file systems: what lacks is fetched, nothing is converted.

A location is not trusted. Its document is read as a stranger's, blobs are found by digest and never by a name that the
document gives, and each is verified and looked at before it is a layer.

*Whose layer it is.* The document says which diffID a file system was made of, and nobody can check that: only whoever
unpacks the layer's archive knows what is in it. If a blob could come into the store under a diffID, a location could
put anything in the place of a layer that others use. So a blob that is fetched gets a name of its own, made of its own
digest (`layer_name`), which all who fetch the same blob share and no archive can have.

*Whose content it is.* A layer that this store has made itself is used where the document names its diffID and also the
digest of its file system. That is the same content, so nothing is taken on trust; and knowing that digest takes having
had the content, or a publication of it, so a diffID that was overheard gets nobody another one's layer.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import IO, TYPE_CHECKING

from uhm_builder.errors import ContentMismatch, LayerTooLarge, StorageUnreachable
from uhm_builder.images import Layer, StageName
from uhm_builder.sources.platforms import Platform
from uhm_builder.sources.source import Resolved, together
from uhm_builder.storage.content import Content
from uhm_builder.storage.document import parse_document
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_builder.layers import LayerMaker
    from uhm_builder.sources.platforms import TargetPlatform
    from uhm_builder.sources.reference import Reference
    from uhm_builder.sources.source import Reporter
    from uhm_builder.storage.document import DocumentLayer
    from uhm_builder.storage.locations import Locations, Opened
    from uhm_common.artifacts import ArtifactStore

__all__ = ["StorageSource", "check_erofs", "layer_name"]

PAUSES = (0.2, 0.5, 1.0, 2.0)
NAMESPACE = b"uhmalguhm: a layer that came as an EROFS file system\0"
SUPERBLOCK_AT, SUPERBLOCK = 1024, struct.Struct("<I8xB23xI")
"""Magic, log2 of the block size, number of blocks (Linux, fs/erofs/erofs_fs.h)."""
EROFS_MAGIC = 0xE0F5E1E2
BLOCK_BITS = 12


def layer_name(digest: str) -> str:
    """What a blob with this digest is called in the store, in the place of a diffID."""
    return f"sha256:{hashlib.sha256(NAMESPACE + digest.encode()).hexdigest()}"


class StorageSource:
    """A `Source` at a storage location."""

    def __init__(
        self,
        reference: Reference,
        *,
        owner: str,
        locations: Locations,
        artifacts: ArtifactStore,
        target: TargetPlatform,
        max_layer_bytes: int,
        reporter: Reporter,
    ) -> None:
        self._reference = reference
        self._owner = owner
        self._locations = locations
        self._artifacts = artifacts
        self._target = target
        self._max_layer_bytes = max_layer_bytes
        self._reporter = reporter
        self._opened: Opened
        self._layers: tuple[tuple[Layer, DocumentLayer], ...] = ()
        self._stack = AsyncExitStack()

    async def resolve(self) -> Resolved:
        """Reads the image's document."""
        opening = self._locations.open(self._reference.location, owner=self._owner)
        self._opened = await self._stack.enter_async_context(opening)
        body = await self._opened.layout.document(self._opened.store, self._reference)
        document = parse_document(body, name=str(self._reference))
        self._target.check(Platform(architecture=document.config.architecture))
        self._layers = tuple([(await in_thread(partial(self._layer, layer)), layer) for layer in document.layers])
        return Resolved(
            digest=f"sha256:{hashlib.sha256(body).hexdigest()}",
            config=document.config,
            layers=tuple(layer for layer, _ in self._layers),
        )

    def _layer(self, described: DocumentLayer) -> Layer:
        """The layer as this store has it, or will. Blocks."""
        if described.size > self._max_layer_bytes:
            raise LayerTooLarge(
                f"A layer has {described.size} bytes, more than {self._max_layer_bytes}.",
                hint="UHM_MAX_LAYER_BYTES is the bound.",
            )
        name = described.diff_id if self._is_ours(described) else layer_name(described.digest)
        return Layer(diff_id=name, digest=described.digest)

    def _is_ours(self, described: DocumentLayer) -> bool:
        blob = self._artifacts.layer(described.diff_id)
        try:
            return blob.stat().st_size == described.size and Content.of(blob).digest == described.digest
        except FileNotFoundError:
            return False

    async def build(self) -> Resolved:
        """What lies at a location is built already."""
        raise NotImplementedError

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Fetches all layers that the store lacks, several at a time."""
        described = {layer.diff_id: (layer, each) for layer, each in self._layers}
        made = dict(
            zip(described, await together(self._take(maker, *each) for each in described.values()), strict=True)
        )
        return tuple(made[layer.diff_id] for layer, _ in self._layers)

    async def _take(self, maker: LayerMaker, layer: Layer, described: DocumentLayer) -> Layer:
        if layer.diff_id == described.diff_id and (found := maker.found(layer.diff_id, digest=layer.digest)):
            return found
        name = layer_name(described.digest)
        return await maker.take(name, partial(self._fetch, described), digest=described.digest)

    async def _fetch(self, described: DocumentLayer, blob: Path) -> None:
        """Writes a blob. Raises ContentMismatch where it is not the one that the document has, or no file system."""
        sha256 = hashlib.sha256()
        pauses = iter(PAUSES)
        with blob.open("xb") as file:
            while file.tell() < described.size:
                try:
                    await self._go_on(described, file, sha256)
                except StorageUnreachable:
                    pause = next(pauses, None)
                    if pause is None:
                        raise
                    await asyncio.sleep(pause)
        if f"sha256:{sha256.hexdigest()}" != described.digest:
            raise ContentMismatch(
                f"A layer at the storage location is not {described.digest}.", hint="Publish the image again."
            )
        check_erofs(blob)

    async def _go_on(self, described: DocumentLayer, file: IO[bytes], sha256: hashlib._Hash) -> None:
        """Takes a blob from where it broke off."""
        name = self._opened.layout.layer(self._reference, described.digest)
        start = file.tell()
        async with aclosing(self._opened.store.get(name, offset=start)) as pieces:
            async for piece in pieces:
                if file.tell() + len(piece) > described.size:
                    raise ContentMismatch(f"A layer at the storage location has more bytes than {described.size}.")
                await in_thread(partial(_write, file, sha256, piece))
                self._reporter.progress(
                    stage=StageName.CONVERT, layer=described.digest, done=file.tell(), total=described.size
                )
        if file.tell() == start:
            raise ContentMismatch(f"A layer at the storage location has fewer bytes than {described.size}.")

    async def close(self) -> None:
        """Ends connections."""
        await self._stack.aclose()


def _write(file: IO[bytes], sha256: hashlib._Hash, piece: bytes) -> None:
    sha256.update(piece)
    file.write(piece)


def check_erofs(blob: Path) -> None:
    """Raises ContentMismatch where a file is no EROFS file system of 4 KiB blocks that lies in it whole."""
    with blob.open("rb") as file:
        file.seek(SUPERBLOCK_AT)
        superblock = file.read(SUPERBLOCK.size)
    if len(superblock) == SUPERBLOCK.size:
        magic, bits, blocks = SUPERBLOCK.unpack(superblock)
        if magic == EROFS_MAGIC and bits == BLOCK_BITS and blocks << bits <= blob.stat().st_size:
            return
    raise ContentMismatch("A layer at the storage location is no EROFS file system.", hint="Publish the image again.")
