"""An image of this store with something put on top: its layers, and one more that is made here."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import NoSuchImage
from uhm_builder.images import Layer, StageName, Status
from uhm_builder.inside.customize import write_layer
from uhm_builder.mkfs import space_checked
from uhm_builder.pieces import PIECE
from uhm_builder.sources.platforms import Platform
from uhm_builder.sources.source import Resolved
from uhm_builder.threads import in_thread
from uhm_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from uhm_builder.customization import Customization
    from uhm_builder.images import Image
    from uhm_builder.inside.views import Views
    from uhm_builder.layers import LayerMaker
    from uhm_builder.mkfs import Conversion
    from uhm_builder.sources.platforms import TargetPlatform
    from uhm_common.artifacts import ArtifactStore

__all__ = ["CustomizedSource"]


class CustomizedSource:
    """A `Source` behind a customization."""

    def __init__(
        self,
        wish: Customization,
        *,
        image: Callable[[str], Awaitable[Image | None]],
        archive: Callable[[str], Awaitable[Path]],
        views: Views,
        target: TargetPlatform,
        store: ArtifactStore,
        max_bytes: int,
    ) -> None:
        """`image(id)` and `archive(id)` answer what its owner has; `archive` raises NoSuchContext."""
        self._wish = wish
        self._image = image
        self._archive = archive
        self._views = views
        self._target = target
        self._store = store
        self._max_bytes = max_bytes
        self._staged = ExitStack()
        self._tar: Path
        self._below: Image
        self._diff_id = ""

    async def resolve(self) -> StageName:
        """Finds the image below; what it becomes, only customising it tells. Raises NoSuchImage, UnsupportedImage."""
        found = await self._image(self._wish.image)
        if found is None or found.status is not Status.READY:
            raise NoSuchImage(f"The image {self._wish.image} is not there any more.", hint="`uhm images` lists yours.")
        self._target.check(Platform(architecture=found.config.architecture or self._target.architecture))
        self._below = found
        return StageName.CUSTOMIZE

    async def build(self) -> Resolved:
        """Writes the new layer. Raises CustomizationFailed, LayerTooLarge, NoSpace, and what a view raises."""
        wish, below = self._wish, self._below
        archives = {each.context: await self._archive(each.context) for each in wish.copy_in}
        self._tar = await in_thread(partial(self._staged.enter_context, self._store.stage())) / "layer.tar"
        if wish != replace(wish, copy_in=(), write=(), ssh_keys=(), users=(), run_first_boot=()):
            with space_checked(self._tar), self._tar.open("w+b") as output:
                question = partial(write_layer, wish=wish, archives=archives, output=output, max_bytes=self._max_bytes)
                self._diff_id = await self._views.ask(below.disk_digest, question)
        layers = tuple(Layer(diff_id=layer.diff_id, digest=layer.digest) for layer in below.layers)
        if self._diff_id:
            layers = (*layers, Layer(diff_id=self._diff_id))
        config = replace(below.config, hostname=wish.hostname or below.config.hostname)
        return Resolved(digest=self._digest(), config=config, layers=layers)

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Finds the layers below, and makes the new one. Raises NotFound where one is gone, and what `make` raises."""
        layers = []
        for layer in self._below.layers:
            found = maker.found(layer.diff_id, digest=layer.digest)
            if found is None:
                raise NotFound(f"The layer {layer.diff_id} is gone.", hint=f"Make {self._below.reference} again.")
            layers.append(found)
        if self._diff_id:
            layers.append(await maker.make(self._diff_id, self._fill))
        return tuple(layers)

    async def close(self) -> None:
        """Deletes what was staged."""
        await in_thread(self._staged.close)

    async def _fill(self, into: Conversion) -> None:
        await in_thread(partial(self._copy, into), interrupt=into.interrupt)

    def _copy(self, into: Conversion) -> None:
        with self._tar.open("rb") as tar:
            while piece := tar.read(PIECE):
                into.write(piece)

    def _digest(self) -> str:
        """Names the image by what it is made of, as there is no manifest."""
        made_of = json.dumps([self._below.digest, self._diff_id, self._wish.hostname])
        return f"sha256:{hashlib.sha256(made_of.encode()).hexdigest()}"
