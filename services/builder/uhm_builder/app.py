"""The wiring of the builder's API."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.belongings import BuilderBelongings
from uhm_builder.export.delivery import Delivery
from uhm_builder.export.exporter import Exporter
from uhm_builder.inside.service import Inside
from uhm_builder.inside.views import Views
from uhm_builder.outputs import Outputs
from uhm_builder.parts import open_parts
from uhm_builder.registry_servicer import REGISTRY_SERVICE, RegistryServicer
from uhm_builder.secrets import HeldSecrets
from uhm_builder.service import Images
from uhm_builder.servicer import IMAGE_SERVICE, ImageServicer
from uhm_builder.storage.service import Storage
from uhm_builder.storage.servicer import STORAGE_SERVICE, StorageServicer
from uhm_builder.usage import UsageMeter
from uhm_builder.watch import Watcher
from uhm_common.bootstrap import Server
from uhm_common.callers.boundary import Boundary
from uhm_common.callers.verifier import remote_verification
from uhm_common.departures import Departures
from uhm_common.events import USERS_DELETED, USERS_STREAM
from uhm_common.idempotency import Idempotency
from uhm_common.subscription import Subscription
from uhmalguhm.builder.v1 import image_pb2_grpc, registry_pb2_grpc, storage_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from uhm_builder.parts import Parts
    from uhm_builder.settings import BuilderSettings

__all__ = ["make_server", "run"]


async def run(settings: BuilderSettings) -> None:
    """Serves until told to stop. Raises UhmError where the address is taken."""
    async with make_server(settings) as server:
        await server.serve()


@asynccontextmanager
async def make_server(settings: BuilderSettings) -> AsyncIterator[Server]:
    """A server with everything it needs, which ends with the block."""
    async with (
        open_parts(settings, name="builder") as parts,
        remote_verification(settings) as verification,
    ):
        secrets = HeldSecrets(store=parts.store, events=parts.events)
        images = _images(parts, secrets)
        views = Views(parts.artifacts, limits=settings.appliance_limits, bounds=settings.appliance_bounds)
        inside = Inside(
            images=images, views=views, page_tokens=parts.page_tokens, max_file_bytes=settings.max_file_bytes
        )
        servicer = _image_servicer(parts, settings, images=images, inside=inside)
        storage = StorageServicer(_storage(parts, images))
        registries = RegistryServicer(registries=parts.registries, clients=parts.registry_clients)
        departures = Departures(BuilderBelongings(parts=parts, images=images, inside=inside))
        deletions = Subscription(
            events=parts.events, stream=USERS_STREAM, subjects=[USERS_DELETED], durable="builder-departures"
        )

        def add(server: grpc.aio.Server) -> None:
            image_pb2_grpc.add_ImageServiceServicer_to_server(servicer, server)
            storage_pb2_grpc.add_StorageServiceServicer_to_server(storage, server)
            registry_pb2_grpc.add_RegistryServiceServicer_to_server(registries, server)

        yield Server(
            listen=settings.api_address,
            tls=settings.server_tls,
            services=[IMAGE_SERVICE, STORAGE_SERVICE, REGISTRY_SERVICE],
            add=add,
            interceptors=[
                Boundary(verifier=verification.verifier),
                Idempotency(parts.idempotency_keys, vault=parts.vault),
            ],
            background=[
                verification.follower.run,
                parts.events.run,
                secrets.run,
                parts.outbox.run,
                parts.idempotency_keys.run,
                views.run,
                partial(deletions.run, departures.handle),
            ],
        )


def _images(parts: Parts, secrets: HeldSecrets) -> Images:
    return Images(
        database=parts.database,
        store=parts.store,
        outbox=parts.outbox,
        events=parts.events,
        contexts=parts.contexts,
        quotas=parts.quotas,
        secrets=secrets,
        locations=parts.locations,
        page_tokens=parts.page_tokens,
    )


def _storage(parts: Parts, images: Images) -> Storage:
    return Storage(
        database=parts.database,
        locations=parts.locations,
        publications=parts.publications,
        images=images,
        outbox=parts.outbox,
        events=parts.events,
        page_tokens=parts.page_tokens,
    )


def _image_servicer(parts: Parts, settings: BuilderSettings, *, images: Images, inside: Inside) -> ImageServicer:
    return ImageServicer(
        images=images,
        watcher=Watcher(store=parts.store, outputs=Outputs(parts.database), events=parts.events),
        retention=parts.retention,
        usage=UsageMeter(
            artifacts=parts.artifacts,
            database=parts.database,
            store=parts.store,
            collector=parts.collector,
            quotas=parts.quotas,
        ),
        contexts=parts.contexts,
        inside=inside,
        delivery=Delivery(
            images=images,
            exporter=Exporter(artifacts=parts.artifacts, kvm=settings.kvm, parallel=settings.parallel_exports),
            stall_seconds=settings.export_stall_seconds,
        ),
    )
