"""From what was asked for to the source that can get it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.sources.dockerfile import DockerfileSource, Recipe
from uhm_builder.sources.engine import Engine
from uhm_builder.sources.pull import RegistrySource
from uhm_builder.sources.reference import ENGINE_PREFIX, parse_reference
from uhm_builder.sources.saved import EngineSource

if TYPE_CHECKING:
    from uhm_builder.contexts import Contexts
    from uhm_builder.images import Image
    from uhm_builder.settings import BuilderSettings
    from uhm_builder.sources.registry import RegistryClient
    from uhm_builder.sources.source import Reporter, Source

__all__ = ["Sources"]


class Sources:
    """Opens sources; holds what they share."""

    def __init__(self, settings: BuilderSettings, *, registry: RegistryClient, contexts: Contexts) -> None:
        self._settings = settings
        self._registry = registry
        self._contexts = contexts

    def open(self, image: Image, reporter: Reporter) -> Source:
        """The source of an image. Raises InvalidReference."""
        architecture = self._settings.architecture
        reference = parse_reference(image.reference)
        if image.context is not None:
            return DockerfileSource(
                Recipe.of(image, image.context, network=self._settings.build_network),
                archive=partial(self._contexts.path, image.context.id, owner=image.owner),
                engine=Engine(self._settings.docker_host),
                architecture=architecture,
                reporter=reporter,
            )
        if reference.in_engine:
            name = str(reference).removeprefix(ENGINE_PREFIX)
            engine = Engine(self._settings.docker_host)
            return EngineSource(name, engine=engine, architecture=architecture, reporter=reporter)
        return RegistrySource(reference, client=self._registry, architecture=architecture, reporter=reporter)
