"""An image from an archive that was uploaded: its layers become EROFS blobs, read where they are in the file."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import ContentMismatch, InvalidArchive, UnsupportedImage
from uhm_builder.images import Layer, StageName
from uhm_builder.inflate import GZIP_MAGIC, ZSTD_MAGIC, Inflater
from uhm_builder.mkfs import space_checked
from uhm_builder.pieces import PIECE
from uhm_builder.sources.config import made_for, parse_config
from uhm_builder.sources.packed import PackedImages
from uhm_builder.sources.source import Resolved, together
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from uhm_builder.images import Image
    from uhm_builder.layers import LayerMaker
    from uhm_builder.mkfs import Conversion
    from uhm_builder.sources.packed import Entry, PackedImage
    from uhm_builder.sources.platforms import TargetPlatform
    from uhm_builder.sources.source import Reporter
    from uhm_common.artifacts import ArtifactStore

__all__ = ["LoadedSource"]

OTHER_COMPRESSIONS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
LISTED = 20


class LoadedSource:
    """A `Source` in an archive of `docker save`, or in OCI layout."""

    def __init__(
        self,
        image: Image,
        *,
        archive: Callable[[], Awaitable[Path]],
        artifacts: ArtifactStore,
        max_bytes: int,
        target: TargetPlatform,
        reporter: Reporter,
    ) -> None:
        """`archive` answers the upload; unpacked it may have `max_bytes`."""
        self._image = image
        self._archive = archive
        self._artifacts = artifacts
        self._max_bytes = max_bytes
        self._target = target
        self._reporter = reporter
        self._stack = ExitStack()
        self._stopped = False
        self._packed: PackedImages
        self._entries: dict[str, Entry] = {}
        self._layers: tuple[Layer, ...] = ()

    async def resolve(self) -> Resolved:
        """Finds the image in the archive, which is decompressed first where it has to be: layers are read by offset."""
        path = await self._archive()
        return await in_thread(partial(self._resolve, path), interrupt=self._stop)

    def _stop(self) -> None:
        self._stopped = True

    def _resolve(self, path: Path) -> Resolved:
        self._packed = PackedImages(self._plain(path))
        assert self._image.archive is not None
        chosen = _chosen(self._packed.images(), self._image.archive.name)
        if not self._image.reference and not chosen.reference:
            raise InvalidArchive("The image has no name in the archive.", hint="Give it one: `uhm load -t NAME`.")
        manifest = self._packed.manifest(chosen, target=self._target)
        architecture = self._target.architecture
        self._target.check(manifest.platform or made_for(manifest.config, architecture=architecture))
        config, diff_ids = parse_config(manifest.config, architecture=architecture)
        if len(diff_ids) != len(manifest.layers):
            raise UnsupportedImage(
                f"The manifest has {len(manifest.layers)} layers, the configuration {len(diff_ids)}."
            )
        self._entries = dict(zip(diff_ids, manifest.layers, strict=True))
        self._layers = tuple(Layer(diff_id=diff_id) for diff_id in diff_ids)
        return Resolved(
            digest=manifest.digest,
            config=config,
            layers=self._layers,
            reference=self._image.reference or chosen.reference,
        )

    def _plain(self, path: Path) -> Path:
        """The archive without its compression, in a staging directory if it has one."""
        with path.open("rb") as file:
            first = file.read(8)
        for magic, name in OTHER_COMPRESSIONS.items():
            if first.startswith(magic):
                raise InvalidArchive(f"The archive is compressed with {name}.", hint="Use gzip, zstd or nothing.")
        if not first.startswith((GZIP_MAGIC, ZSTD_MAGIC)):
            return path
        plain = self._stack.enter_context(self._artifacts.stage()) / "archive.tar"
        with space_checked(plain), path.open("rb") as file, plain.open("xb") as target:

            def write(piece: bytes) -> None:
                if self._stopped:
                    raise InterruptedError
                if target.tell() + len(piece) > self._max_bytes:
                    raise InvalidArchive(
                        f"The archive has more than {self._max_bytes} bytes, uncompressed.",
                        hint="UHM_MAX_ARCHIVE_BYTES is the bound.",
                    )
                target.write(piece)

            inflater = Inflater(write)
            try:
                while piece := file.read(PIECE):
                    inflater.feed(piece)
                inflater.finish()
            except ContentMismatch as error:
                raise InvalidArchive("The archive's compression is damaged, or it ends early.") from error
        return plain

    async def build(self) -> Resolved:
        """What is in an archive is built already."""
        raise NotImplementedError

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Reads all layers that the store lacks, several at a time."""
        made = await together(maker.make(diff_id, partial(self._copy, diff_id)) for diff_id in self._entries)
        by_id = {layer.diff_id: layer for layer in made}
        return tuple(by_id[layer.diff_id] for layer in self._layers)

    async def _copy(self, diff_id: str, into: Conversion) -> None:
        await in_thread(partial(self._read, diff_id, into), interrupt=into.interrupt)

    def _read(self, diff_id: str, into: Conversion) -> None:
        entry = self._entries[diff_id]
        inflater = Inflater(into.write)
        done = 0
        for piece in self._packed.pieces(entry):
            inflater.feed(piece)
            done += len(piece)
            self._reporter.progress(stage=StageName.CONVERT, layer=diff_id, done=done, total=entry.size)
        inflater.finish()

    async def close(self) -> None:
        """Deletes what was decompressed."""
        await in_thread(self._stack.close)


def _chosen(images: Sequence[PackedImage], name: str) -> PackedImage:
    """The image of that name, or the only one. Raises InvalidArchive with those that there are."""
    fitting = [image for image in images if not name or image.is_called(name)]
    if len(fitting) == 1:
        return fitting[0]
    shown = [next(iter(image.names), "one without a name") for image in images[:LISTED]]
    listed = ", ".join(shown) + (", …" if len(images) > LISTED else "")
    if name:
        raise InvalidArchive(f"The archive has {'no' if not fitting else 'more than one'} {name[:200]!r}: {listed}.")
    raise InvalidArchive(
        f"The archive has {len(images)} images: {listed}.", hint="Say which one with `uhm load --image NAME`."
    )
