"""An image built from a Dockerfile by the Docker Engine, then taken from it like any that it holds.

BuildKit builds it where a command line on this machine reaches it, else the engine's classic builder. The result has a
name of this build's own while its layers are taken. After that BuildKit's cache, which is beside its images, serves
rebuilds. The classic builder's cache is its images: there the newest build of an owner's reference stays in the engine
as `uhm-cache:…`, and the one before it is deleted.
"""

from __future__ import annotations

import hashlib
import tarfile
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from docker.errors import APIError, NotFound

from uhm_builder.errors import InvalidContext
from uhm_builder.images import StageName
from uhm_builder.inflate import GZIP_MAGIC, ZSTD_MAGIC
from uhm_builder.sources.buildkit import BuildOrder
from uhm_builder.sources.classic import ClassicBuild
from uhm_builder.sources.engine_image import EngineSource
from uhm_builder.sources.reference import BUILDS, CACHE
from uhm_builder.threads import in_thread
from uhm_common.errors import UhmError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from uhm_builder.images import BuildContext, Image, Layer
    from uhm_builder.layers import LayerMaker
    from uhm_builder.sources.buildkit import BuildKit
    from uhm_builder.sources.engine import Engine
    from uhm_builder.sources.platforms import TargetPlatform
    from uhm_builder.sources.source import Reporter, Resolved

__all__ = ["DockerfileSource", "Materials", "Recipe"]

MAGICS = (GZIP_MAGIC, b"BZh", b"\xfd7zXZ\0", ZSTD_MAGIC)
"""Of gzip, bzip2, xz and Zstandard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to build and what to call it in the engine."""

    order: BuildOrder
    cache_name: str

    @classmethod
    def of(cls, image: Image, context: BuildContext, *, host: str, network: str) -> Recipe:
        """The recipe of an image's build."""
        key = hashlib.sha256(f"{image.owner}\0{image.reference}".encode()).hexdigest()[:32]
        order = BuildOrder(
            context=context, host=host, network=network, platform=image.platform, tag=f"{BUILDS}:{image.id}"
        )
        return cls(order=order, cache_name=f"{CACHE}:{key}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What a build is made of, asked for when it begins."""

    archive: Callable[[], Awaitable[Path]]
    """The path of the context; raises NoSuchContext."""
    secrets: Callable[[], Awaitable[Mapping[str, bytes]]]
    """Build secrets by id; raises SecretsLost."""


class DockerfileSource:
    """A `Source` behind an uploaded context."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        materials: Materials,
        engine: Engine,
        buildkit: BuildKit,
        target: TargetPlatform,
        reporter: Reporter,
    ) -> None:
        self._recipe = recipe
        self._materials = materials
        self._engine = engine
        self._buildkit = buildkit
        self._reporter = reporter
        self._has_buildkit = False
        name = recipe.order.tag
        self._built = EngineSource(name, engine=engine, target=target.of_any_variant, reporter=reporter)
        self._path: Path

    async def resolve(self) -> StageName:
        """Finds the context; what the image is, only building it tells."""
        self._path = await self._materials.archive()
        if not await in_thread(partial(_is_archive, self._path)):
            raise InvalidContext("The build context is no tar archive.", hint="Pack the directory with tar.")
        return StageName.BUILD

    async def build(self) -> Resolved:
        """Has the engine build it, its output passed on. Raises DockerfileFailed, EngineUnreachable, SecretsLost."""
        self._has_buildkit = await self._buildkit.reaches(self._engine)
        if self._has_buildkit:
            order = replace(self._recipe.order, secrets=await self._materials.secrets())
            with self._buildkit.run(order, archive=self._path) as running:
                await in_thread(partial(running.follow, self._reporter.output), interrupt=running.interrupt)
        else:
            classic = ClassicBuild(self._recipe.order, engine=self._engine, reporter=self._reporter)
            await in_thread(partial(classic.run, self._path), interrupt=self._engine.interrupt)
        return await self._built.resolve()

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Takes the layers, and leaves what the engine needs for its cache."""
        layers = await self._built.convert(maker)
        if not self._has_buildkit:
            await in_thread(self._keep_for_rebuilds, interrupt=self._engine.interrupt)
        return layers

    def _keep_for_rebuilds(self) -> None:
        client, name = self._engine.client, self._recipe.order.tag
        with self._engine.errors(name):
            built = client.inspect_image(name)["Id"]
            former = None
            with suppress(NotFound):
                former = client.inspect_image(self._recipe.cache_name)["Id"]
            repository, _, tag = self._recipe.cache_name.partition(":")
            client.tag(built, repository, tag)
            if former not in (None, built):
                with suppress(APIError):  # something else was made of it, or uses it
                    client.remove_image(former)

    async def close(self) -> None:
        """Takes the build's own name away."""
        with suppress(UhmError):  # the engine is gone, or never had it
            await in_thread(self._untag)
        await self._built.close()

    def _untag(self) -> None:
        name = self._recipe.order.tag
        with closing(self._engine.renewed()) as engine, engine.errors(name):
            engine.client.remove_image(name, noprune=True)


def _is_archive(path: Path) -> bool:
    """Whether it begins like one. Docker's command line would take anything else for a Dockerfile."""
    with path.open("rb") as file:
        first = file.read(tarfile.BLOCKSIZE)
    if first.startswith(MAGICS):
        return True
    try:
        tarfile.TarInfo.frombuf(first, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
