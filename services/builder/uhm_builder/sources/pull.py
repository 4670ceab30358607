"""An image straight from a registry: each layer becomes its EROFS blob while it is downloaded.

An index may hold indexes; they are read one level after the other, and only as far as it takes.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.disk import MAX_LAYERS
from uhm_builder.errors import ContentMismatch, UnsupportedImage
from uhm_builder.images import Layer, StageName
from uhm_builder.inflate import Inflater
from uhm_builder.sources.config import made_for, parse_config
from uhm_builder.sources.manifest import Index, Manifest, parse_manifest
from uhm_builder.sources.source import Resolved, together
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from uhm_builder.layers import LayerMaker
    from uhm_builder.mkfs import Conversion
    from uhm_builder.sources.manifest import Descriptor
    from uhm_builder.sources.platforms import Platform, TargetPlatform
    from uhm_builder.sources.reference import Reference
    from uhm_builder.sources.registry import RegistryClient, Repository
    from uhm_builder.sources.source import Reporter

__all__ = ["RegistrySource"]

INDEXES_MAX = 16


class RegistrySource:
    """A `Source` behind a registry's reference. The client ends with it."""

    def __init__(
        self, reference: Reference, *, client: RegistryClient, target: TargetPlatform, reporter: Reporter
    ) -> None:
        self._reference = reference
        self._client = client
        self._target = target
        self._reporter = reporter
        self._repository: Repository
        self._wanted: dict[str, Descriptor] = {}
        self._layers: tuple[Layer, ...] = ()

    async def resolve(self) -> Resolved:
        """Reads index, manifest and configuration."""
        self._repository, document, content_type = await self._client.manifest(self._reference)
        manifest = parse_manifest(document, content_type=content_type)
        digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        platform = None
        if isinstance(manifest, Index):
            manifest, platform = await self._manifest_in(manifest)
        if len(manifest.layers) > MAX_LAYERS:
            raise UnsupportedImage(f"The image has {len(manifest.layers)} layers; a disk holds {MAX_LAYERS}.")
        configuration = await self._repository.document(manifest.config)
        architecture = self._target.architecture
        self._target.check(platform or made_for(configuration, architecture=architecture))
        config, diff_ids = parse_config(configuration, architecture=architecture)
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

    async def _manifest_in(self, index: Index) -> tuple[Manifest, Platform | None]:
        """The manifest for the platform, as which its index has it. Raises UnsupportedImage with those there are."""
        offered: set[str] = set()
        waiting: list[Index | Descriptor] = [index]
        for number, each in enumerate(waiting):  # which grows meanwhile
            if number == INDEXES_MAX:
                raise UnsupportedImage(f"The image is an index of more than {INDEXES_MAX - 1} indexes.")
            found = each if isinstance(each, Index) else await self._read(each)
            platform = None
            if isinstance(found, Index) and self._target.runnable and (chosen := found.find(self._target.platform)):
                found, platform = await self._read(chosen), chosen.made_for
            if isinstance(found, Manifest):
                return found, platform
            offered |= found.offered
            waiting += found.indexes
        raise self._target.refusal(offered)

    async def _read(self, descriptor: Descriptor) -> Manifest | Index:
        document, content_type = await self._repository.manifest(descriptor.digest)
        return parse_manifest(document, content_type=content_type or descriptor.media_type)

    async def build(self) -> Resolved:
        """What a registry has is built already."""
        raise NotImplementedError

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Fetches all layers that the store lacks, several at a time."""
        made = await together(
            maker.make(diff_id, partial(self._fetch, descriptor), digest=descriptor.digest)
            for diff_id, descriptor in self._wanted.items()
        )
        by_id = {layer.diff_id: layer for layer in made}
        return tuple(by_id[layer.diff_id] for layer in self._layers)

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
        """Ends the client's connections."""
        await self._client.close()


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
