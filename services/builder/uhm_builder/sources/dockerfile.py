"""An image built from a Dockerfile by the Docker Engine, then taken from it like any that it holds.

The result has a name of this build's own while its layers are taken. After that it is known as the newest build of its
owner's reference, `uhm-cache:…`, so that the engine's cache keeps serving rebuilds; the one before it is deleted.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound

from uhm_builder.errors import DockerfileFailed
from uhm_builder.sources.saved import EngineSource
from uhm_builder.threads import in_thread
from uhm_common.errors import UhmError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from uhm_builder.images import BuildContext, Image, Layer
    from uhm_builder.layers import LayerMaker
    from uhm_builder.sources.engine import Engine
    from uhm_builder.sources.source import Reporter, Resolved

__all__ = ["DockerfileSource", "Recipe"]

LAST_LINES = 10
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
OWN_WORDS = ("Step ", " ---> ", "Removing intermediate container ")
CACHE = "uhm-cache"
BUILDS = "uhm-build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to build and what to call it in the engine."""

    context: BuildContext
    network: str
    build_name: str
    cache_name: str

    @classmethod
    def of(cls, image: Image, context: BuildContext, *, network: str) -> Recipe:
        """The recipe of an image's build."""
        key = hashlib.sha256(f"{image.owner}\0{image.reference}".encode()).hexdigest()[:32]
        return cls(
            context=context,
            network=network,
            build_name=f"{BUILDS}:{image.id}",
            cache_name=f"{CACHE}:{key}",
        )


class DockerfileSource:
    """A `Source` behind an uploaded context."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        archive: Callable[[], Awaitable[Path]],
        engine: Engine,
        architecture: str,
        reporter: Reporter,
    ) -> None:
        """`archive()` is awaited for the path of the context; it raises NoSuchContext."""
        self._recipe = recipe
        self._archive = archive
        self._engine = engine
        self._reporter = reporter
        self._step: list[str] = []  # what the step that runs has written
        self._built = EngineSource(recipe.build_name, engine=engine, architecture=architecture, reporter=reporter)
        self._path: Path

    async def resolve(self) -> None:
        """Finds the context; what the image is, only building it tells."""
        self._path = await self._archive()

    async def build(self) -> Resolved:
        """Has the engine build it, and passes its output on. Raises DockerfileFailed, EngineUnreachable."""
        await in_thread(self._run, interrupt=self._engine.interrupt)
        return await self._built.resolve()

    def _run(self) -> None:
        wanted = self._recipe.context
        with self._engine.errors(self._recipe.build_name), self._path.open("rb") as archive:
            entries = self._engine.client.build(
                fileobj=archive,
                custom_context=True,
                decode=True,
                tag=self._recipe.build_name,
                dockerfile=wanted.dockerfile,
                buildargs=wanted.build_args,
                target=wanted.target or None,
                nocache=wanted.no_cache,
                network_mode=self._recipe.network or None,
                rm=True,
                forcerm=True,
            )
            for entry in entries:
                self._hear(entry)

    def _hear(self, entry: dict[str, Any]) -> None:
        if "error" in entry:
            last = "\n".join(self._step[-LAST_LINES:])
            raise DockerfileFailed(f"{entry['error'].strip()}\n{last}".strip())
        text = entry.get("stream") or " ".join(
            part for part in (entry.get("id"), entry.get("status")) if part and not entry.get("progressDetail")
        )
        for line in ANSI.sub("", text).splitlines():
            if not line.strip():
                continue
            if line.startswith("Step "):
                self._step = []
            if not line.startswith(OWN_WORDS):
                self._step.append(line)
            self._reporter.output(line)

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Takes the layers, and leaves the image to the engine's cache."""
        layers = await self._built.convert(maker)
        await in_thread(self._keep_for_rebuilds, interrupt=self._engine.interrupt)
        return layers

    def _keep_for_rebuilds(self) -> None:
        client, recipe = self._engine.client, self._recipe
        with self._engine.errors(recipe.build_name):
            built = client.inspect_image(recipe.build_name)["Id"]
            former = None
            with suppress(NotFound):
                former = client.inspect_image(recipe.cache_name)["Id"]
            repository, _, tag = recipe.cache_name.partition(":")
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
        with closing(self._engine.renewed()) as engine, engine.errors(self._recipe.build_name):
            engine.client.remove_image(self._recipe.build_name, noprune=True)
