"""An image straight from a registry: each layer becomes its EROFS blob while it is downloaded."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import ContentMismatch, UnsupportedImage
from uhm_builder.images import Layer, StageName
from uhm_builder.inflate import Inflater
from uhm_builder.sources.config import parse_config
from uhm_builder.sources.manifest import Index, Manifest, choose, parse_manifest
from uhm_builder.sources.source import Resolved
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from uhm_builder.layers import LayerMaker
    from uhm_builder.mkfs import Conversion
    from uhm_builder.sources.manifest import Descriptor
    from uhm_builder.sources.reference import Reference
    from uhm_builder.sources.registry import RegistryClient, Repository
    from uhm_builder.sources.source import Reporter

__all__ = ["RegistrySource"]


class RegistrySource:
    """A `Source` behind a registry's reference."""

    def __init__(self, reference: Reference, *, client: RegistryClient, architecture: str, reporter: Reporter) -> None:
        self._reference = reference
        self._client = client
        self._architecture = architecture
        self._reporter = reporter
        self._repository: Repository
        self._wanted: dict[str, Descriptor] = {}
        self._layers: tuple[Layer, ...] = ()

    async def resolve(self) -> Resolved:
        """Reads index, manifest and configuration."""
        self._repository, document, content_type = await self._client.manifest(self._reference)
        manifest = parse_manifest(document, content_type=content_type)
        digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        if isinstance(manifest, Index):
            manifest = await self._manifest_in(manifest)
        config, diff_ids = parse_config(
            await self._repository.document(manifest.config), architecture=self._architecture
        )
        if len(diff_ids) != len(manifest.layers):
            raise UnsupportedImage(
                f"The manifest has {len(manifest.layers)} layers, the configuration {len(diff_ids)}."
            )
        self._wanted = dict(zip(diff_ids, manifest.layers, strict=True))
        self._layers = tuple(
            Layer(diff_id=diff_id, digest=layer.digest)
            for diff_id, layer in zip(diff_ids, manifest.layers, strict=True)
        )
        return Resolved(digest=digest, config=config, layers=self._layers)

    async def _manifest_in(self, index: Index) -> Manifest:
        chosen = choose(index, architecture=self._architecture)
        document, content_type = await self._repository.manifest(chosen.digest)
        manifest = parse_manifest(document, content_type=content_type or chosen.media_type)
        if isinstance(manifest, Index):
            raise UnsupportedImage("The image is an index of indexes.")
        return manifest

    async def build(self) -> Resolved:
        """What a registry has is built already."""
        raise NotImplementedError

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Fetches all layers that the store lacks, several at a time."""
        made: dict[str, Layer] = {}

        async def make(diff_id: str, descriptor: Descriptor) -> None:
            made[diff_id] = await maker.make(diff_id, partial(self._fetch, descriptor), digest=descriptor.digest)

        try:
            async with asyncio.TaskGroup() as tasks:
                for diff_id, descriptor in self._wanted.items():
                    tasks.create_task(make(diff_id, descriptor))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        return tuple(made[layer.diff_id] for layer in self._layers)

    async def _fetch(self, descriptor: Descriptor, into: Conversion) -> None:
        """Downloads one layer into its conversion; while a piece is converted the next one is on its way."""
        fetched = _Fetched(into)
        done = 0
        feeding: asyncio.Task[None] | None = None
        async with aclosing(self._repository.blob(descriptor)) as pieces:
            try:
                async for piece in pieces:
                    if feeding is not None:
                        await feeding
                    feeding = asyncio.create_task(in_thread(partial(fetched.feed, piece), interrupt=into.interrupt))
                    done += len(piece)
                    self._reporter.progress(
                        stage=StageName.CONVERT, layer=descriptor.digest, done=done, total=descriptor.size
                    )
                if feeding is not None:
                    await feeding
                await in_thread(fetched.finish, interrupt=into.interrupt)
            finally:
                if feeding is not None and not feeding.done():
                    feeding.cancel()
                    await asyncio.wait([feeding])
        if fetched.digest != descriptor.digest:
            raise ContentMismatch(
                f"A layer that the registry sent is {fetched.digest}, not {descriptor.digest}.",
                hint="The registry, or something between, is broken.",
            )

    async def close(self) -> None:
        """Connections belong to the client."""


class _Fetched:
    """A compressed layer on its way into a conversion."""

    def __init__(self, into: Conversion) -> None:
        self._sha256 = hashlib.sha256()
        self._inflater = Inflater(into.write)

    def feed(self, piece: bytes) -> None:
        self._sha256.update(piece)
        self._inflater.feed(piece)

    def finish(self) -> None:
        self._inflater.finish()

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"
