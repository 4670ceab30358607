"""An image that the local Docker Engine holds.

Only layers that are not in the store are taken: out of the engine's own directories where they can be read, and what is
missing then out of the archive that `docker save` writes, while it is written.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import ContentMismatch
from uhm_builder.images import Layer, StageName
from uhm_builder.inflate import Inflater
from uhm_builder.sources.config import made_for, parse_config
from uhm_builder.sources.layerdb import LayerDatabase, LayerUnreadable
from uhm_builder.sources.saved_stream import SavedImage
from uhm_builder.sources.source import Resolved
from uhm_builder.threads import in_thread
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection

    from uhm_builder.layers import LayerMaker
    from uhm_builder.mkfs import Conversion
    from uhm_builder.sources.engine import Engine
    from uhm_builder.sources.layerdb import StoredLayer
    from uhm_builder.sources.platforms import TargetPlatform
    from uhm_builder.sources.saved_stream import Entry
    from uhm_builder.sources.source import Reporter

__all__ = ["EngineSource"]

log = get_logger()


class EngineSource:
    """A `Source` behind a name in the Docker Engine."""

    def __init__(self, name: str, *, engine: Engine, target: TargetPlatform, reporter: Reporter) -> None:
        self._name = name
        self._engine = engine
        self._target = target
        self._reporter = reporter
        self._diff_ids: tuple[str, ...] = ()
        self._database: LayerDatabase | None = None

    async def resolve(self) -> Resolved:
        """Asks the engine what it knows."""
        found = await in_thread(partial(self._engine.inspect, self._name), interrupt=self._engine.interrupt)
        record = {
            "architecture": found.get("Architecture", ""),
            "os": found.get("Os", "linux"),
            "variant": found.get("Variant", ""),
            "config": found.get("Config"),
            "rootfs": {"diff_ids": (found.get("RootFS") or {}).get("Layers")},
        }
        self._database = LayerDatabase.of(found)
        document, architecture = json.dumps(record).encode(), self._target.architecture
        self._target.check(made_for(document, architecture=architecture))
        config, self._diff_ids = parse_config(document, architecture=architecture)
        layers = tuple(Layer(diff_id=diff_id) for diff_id in self._diff_ids)
        return Resolved(digest=str(found["Id"]), config=config, layers=layers)

    async def build(self) -> Resolved:
        """What an engine holds is built already."""
        raise NotImplementedError

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Takes what is missing: layer by layer where the engine's directories are at hand, else all or nothing."""
        made = {diff_id: layer for diff_id in self._diff_ids if (layer := maker.found(diff_id))}
        if self._database is not None and made.keys() < set(self._diff_ids):
            made |= await self._read_stored(self._database, maker, known=made.keys())
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

    async def _read_stored(
        self, database: LayerDatabase, maker: LayerMaker, *, known: Collection[str]
    ) -> dict[str, Layer]:
        """The layers that the engine's directories give."""
        stored = await in_thread(partial(database.layers, self._diff_ids))
        try:
            async with asyncio.TaskGroup() as tasks:
                making = [
                    tasks.create_task(self._make_stored(diff_id, layer, maker))
                    for diff_id, layer in stored.items()
                    if diff_id not in known
                ]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        return {layer.diff_id: layer for task in making if (layer := task.result())}

    async def _make_stored(self, diff_id: str, stored: StoredLayer, maker: LayerMaker) -> Layer | None:
        async def fill(into: Conversion) -> None:
            await in_thread(partial(self._weave, diff_id, stored, into), interrupt=into.interrupt)

        try:
            return await maker.make(diff_id, fill)
        except (LayerUnreadable, ContentMismatch) as error:
            log.warning("engine.layer_unreadable", diff_id=diff_id, error=str(error))
            return None

    def _weave(self, diff_id: str, stored: StoredLayer, into: Conversion) -> None:
        done = 0
        for piece in stored.pieces():
            into.write(piece)
            done += len(piece)
            self._reporter.progress(stage=StageName.CONVERT, layer=diff_id, done=done, total=max(stored.size, done))

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
