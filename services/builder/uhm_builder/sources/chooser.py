"""From what was asked for to the source that can get it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.sources.buildkit import BuildKit
from uhm_builder.sources.customized import CustomizedSource
from uhm_builder.sources.dockerfile import DockerfileSource, Materials, Recipe
from uhm_builder.sources.engine import Engine
from uhm_builder.sources.engine_image import EngineSource
from uhm_builder.sources.loaded import LoadedSource
from uhm_builder.sources.platforms import TargetPlatform
from uhm_builder.sources.pull import RegistrySource
from uhm_builder.sources.reference import ENGINE_PREFIX, parse_reference
from uhm_builder.sources.storage import StorageSource
from uhm_common.artifacts import ArtifactStore

if TYPE_CHECKING:
    from uhm_builder.contexts import Contexts
    from uhm_builder.images import Image
    from uhm_builder.inside.views import Views
    from uhm_builder.registries import Registries
    from uhm_builder.secrets import SecretRequests
    from uhm_builder.settings import BuilderSettings
    from uhm_builder.sources.clients import RegistryClients
    from uhm_builder.sources.source import Reporter, Source
    from uhm_builder.storage.locations import Locations
    from uhm_builder.store import ImageStore

__all__ = ["Sources"]


class Sources:
    """Opens sources; holds what they share."""

    def __init__(
        self,
        settings: BuilderSettings,
        *,
        registries: Registries,
        clients: RegistryClients,
        contexts: Contexts,
        secrets: SecretRequests,
        images: ImageStore,
        views: Views,
        locations: Locations,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._buildkit = BuildKit(
            artifacts=ArtifactStore(settings.artifacts_dir), auth_file=settings.registry_auth_file
        )
        self._registries = registries
        self._clients = clients
        self._contexts = contexts
        self._images = images
        self._views = views
        self._locations = locations

    def open(self, image: Image, reporter: Reporter) -> Source:
        """The source of an image. Raises InvalidReference, InvalidPlatform."""
        target = TargetPlatform.of(image.platform, architecture=self._settings.architecture)
        if image.archive is not None:
            return LoadedSource(
                image,
                archive=partial(self._contexts.path, image.archive.id, owner=image.owner),
                artifacts=ArtifactStore(self._settings.artifacts_dir),
                max_bytes=self._settings.max_archive_bytes,
                target=target,
                reporter=reporter,
            )
        if image.customization is not None:
            return CustomizedSource(
                image.customization,
                image=partial(self._images.get, owner=image.owner),
                archive=partial(self._contexts.path, owner=image.owner),
                views=self._views,
                target=target,
                store=ArtifactStore(self._settings.artifacts_dir),
                max_bytes=self._settings.max_layer_bytes,
            )
        reference = parse_reference(image.reference)
        if image.context is not None:
            return DockerfileSource(
                Recipe.of(image, image.context, host=self._settings.docker_host, network=self._settings.build_network),
                materials=Materials(
                    archive=partial(self._contexts.path, image.context.id, owner=image.owner),
                    secrets=partial(self._secrets.of, image),
                ),
                engine=Engine(self._settings.docker_host),
                buildkit=self._buildkit,
                target=target,
                reporter=reporter,
            )
        if reference.location:
            return StorageSource(
                reference,
                owner=image.owner,
                locations=self._locations,
                artifacts=ArtifactStore(self._settings.artifacts_dir),
                target=target,
                max_layer_bytes=self._settings.max_layer_bytes,
                reporter=reporter,
            )
        if reference.in_engine:
            name = str(reference).removeprefix(ENGINE_PREFIX)
            engine = Engine(self._settings.docker_host)
            return EngineSource(name, engine=engine, target=target, reporter=reporter)
        return RegistrySource(
            reference,
            client=self._clients.open(partial(self._registries.account, owner=image.owner)),
            target=target,
            reporter=reporter,
        )
