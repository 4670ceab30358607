"""An image that the local Docker Engine holds: the layers of its archive become EROFS blobs while it is written."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import ContentMismatch
from uhm_builder.images import Layer, StageName
from uhm_builder.inflate import Inflater
from uhm_builder.sources.archive import SavedImage
from uhm_builder.sources.config import parse_config
from uhm_builder.sources.source import Resolved
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from uhm_builder.layers import LayerMaker
    from uhm_builder.mkfs import Conversion
    from uhm_builder.sources.archive import Entry
    from uhm_builder.sources.engine import Engine
    from uhm_builder.sources.source import Reporter

__all__ = ["EngineSource"]


class EngineSource:
    """A `Source` behind a name in the Docker Engine."""

    def __init__(self, name: str, *, engine: Engine, architecture: str, reporter: Reporter) -> None:
        self._name = name
        self._engine = engine
        self._architecture = architecture
        self._reporter = reporter
        self._diff_ids: tuple[str, ...] = ()

    async def resolve(self) -> Resolved:
        """Asks the engine what it knows."""
        found = await in_thread(partial(self._engine.inspect, self._name), interrupt=self._engine.interrupt)
        record = {
            "architecture": found.get("Architecture", ""),
            "os": found.get("Os", "linux"),
            "config": found.get("Config"),
            "rootfs": {"diff_ids": (found.get("RootFS") or {}).get("Layers")},
        }
        config, self._diff_ids = parse_config(json.dumps(record).encode(), architecture=self._architecture)
        layers = tuple(Layer(diff_id=diff_id) for diff_id in self._diff_ids)
        return Resolved(digest=str(found["Id"]), config=config, layers=layers)

    async def build(self) -> Resolved:
        """What an engine holds is built already."""
        raise NotImplementedError

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Reads the archive, if only one layer is missing: an engine gives all or nothing."""
        made = {diff_id: layer for diff_id in self._diff_ids if (layer := maker.found(diff_id))}
        missing = set(self._diff_ids) - made.keys()
        if missing:
            archive = SavedImage(self._engine.save(self._name), diff_ids=self._diff_ids)
            while missing and (entry := await self._next(archive)):
                if layer := await self._make(entry, maker, missing):
                    made[layer.diff_id] = layer
                    missing.discard(layer.diff_id)
        if missing:
            raise ContentMismatch(
                f"The Docker Engine's archive of {self._name} lacks the layer {min(missing)}.",
                hint="The image is damaged in the engine; pull or build it again.",
            )
        return tuple(made[diff_id] for diff_id in self._diff_ids)

    async def _next(self, archive: SavedImage) -> Entry | None:
        return await in_thread(archive.next_layer, interrupt=self._engine.interrupt)

    async def _make(self, entry: Entry, maker: LayerMaker, missing: set[str]) -> Layer | None:
        fill = partial(self._copy, entry)
        if not entry.diff_id:
            return await maker.make_unknown(missing, fill)
        return await maker.make(entry.diff_id, fill) if entry.diff_id in missing else None

    async def _copy(self, entry: Entry, into: Conversion) -> None:
        def interrupt() -> None:
            into.interrupt()
            self._engine.interrupt()

        await in_thread(partial(self._read, entry, into), interrupt=interrupt)

    def _read(self, entry: Entry, into: Conversion) -> None:
        inflater = Inflater(into.write)
        done = 0
        for piece in entry.pieces():
            inflater.feed(piece)
            done += len(piece)
            self._reporter.progress(stage=StageName.CONVERT, layer=entry.diff_id, done=done, total=entry.size)
        inflater.finish()

    async def close(self) -> None:
        """Ends the conversation with the engine."""
        await in_thread(self._engine.close)
