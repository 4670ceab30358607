"""The wiring of the builder's API, and of what it shares with the worker."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from uhm_builder.collector import Collector
from uhm_builder.contexts import Contexts
from uhm_builder.export.delivery import Delivery
from uhm_builder.export.exporter import Exporter
from uhm_builder.inside.service import Inside
from uhm_builder.inside.views import Views
from uhm_builder.models import OUTBOX, VERSION_TABLE, Base
from uhm_builder.outputs import Outputs
from uhm_builder.quotas import Quotas
from uhm_builder.registries import Registries
from uhm_builder.registry_servicer import REGISTRY_SERVICE, RegistryServicer
from uhm_builder.retention import Retention
from uhm_builder.secrets import HeldSecrets
from uhm_builder.service import Images
from uhm_builder.servicer import SERVICE_NAME, ImageServicer
from uhm_builder.sources.challenge import load_credentials
from uhm_builder.sources.clients import RegistryClients
from uhm_builder.storage.locations import Locations
from uhm_builder.storage.publications import PublicationStore
from uhm_builder.storage.service import Storage
from uhm_builder.storage_servicer import STORAGE_SERVICE, StorageServicer
from uhm_builder.store import ImageStore
from uhm_builder.usage import UsageMeter
from uhm_builder.watch import Watcher
from uhm_common.artifacts import ArtifactStore
from uhm_common.bootstrap import Server
from uhm_common.boundary import Boundary
from uhm_common.database import Database
from uhm_common.events import EventBus
from uhm_common.identity import AuthServiceKeys, TokenVerifier
from uhm_common.outbox import Outbox
from uhm_common.settings import database_url
from uhm_common.vault import open_vault
from uhmalguhm.builder.v1 import image_pb2_grpc, registry_pb2_grpc, storage_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uhm_builder.settings import BuilderSettings

__all__ = ["MIGRATIONS", "Parts", "make_server", "open_parts", "run"]

MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What both the API and a worker stand on."""

    artifacts: ArtifactStore
    database: Database
    store: ImageStore
    events: EventBus
    outbox: Outbox
    contexts: Contexts
    collector: Collector
    retention: Retention
    quotas: Quotas
    locations: Locations
    publications: PublicationStore
    registries: Registries
    registry_clients: RegistryClients


@asynccontextmanager
async def open_parts(settings: BuilderSettings, *, name: str) -> AsyncIterator[Parts]:
    """The shared parts, with the schema up to date."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    database = Database(database_url(settings, service="builder"))
    try:
        await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
        artifacts = ArtifactStore(settings.artifacts_dir)
        store = ImageStore(database)
        events = EventBus(settings.nats_url, name=name)
        outbox = Outbox(OUTBOX, database=database, events=events)
        contexts = Contexts(
            settings.contexts_dir,
            database=database,
            max_bytes=settings.max_context_bytes,
            max_bytes_in_all=settings.max_contexts_bytes,
        )
        collector = Collector(
            artifacts=artifacts, database=database, store=store, grace_seconds=settings.layer_grace_seconds
        )
        vault = open_vault(settings.secrets_key)
        yield Parts(
            artifacts=artifacts,
            database=database,
            store=store,
            events=events,
            outbox=outbox,
            contexts=contexts,
            collector=collector,
            retention=Retention(
                artifacts=artifacts,
                database=database,
                store=store,
                outbox=outbox,
                contexts=contexts,
                collector=collector,
                rules=settings.rules,
            ),
            quotas=Quotas(settings.quota, database=database, store=store),
            locations=Locations(
                database=database,
                vault=vault,
                directories=settings.allowed_directories,
                rules=settings.host_rules,
            ),
            publications=PublicationStore(database),
            registries=Registries(database=database, vault=vault),
            registry_clients=RegistryClients(
                mirrors=settings.registry_mirrors,
                credentials=load_credentials(settings.registry_auth_file),
                rules=settings.host_rules,
            ),
        )
    finally:
        await database.close()


async def run(settings: BuilderSettings) -> None:
    """Serves until told to stop. Raises UhmError where the address is taken."""
    async with make_server(settings) as server:
        await server.serve()


@asynccontextmanager
async def make_server(settings: BuilderSettings) -> AsyncIterator[Server]:
    """A server with everything it needs, which ends with the block."""
    async with (
        open_parts(settings, name="builder") as parts,
        grpc.aio.insecure_channel(settings.auth_address) as auth,
    ):
        verifier = TokenVerifier(AuthServiceKeys(auth), issuer=settings.token_issuer, audience=settings.token_audience)
        secrets = HeldSecrets(store=parts.store, events=parts.events)
        images = Images(
            database=parts.database,
            store=parts.store,
            outbox=parts.outbox,
            events=parts.events,
            contexts=parts.contexts,
            quotas=parts.quotas,
            secrets=secrets,
            locations=parts.locations,
        )
        views = Views(parts.artifacts, limits=settings.appliance_limits, bounds=settings.appliance_bounds)
        servicer = ImageServicer(
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
            inside=Inside(images=images, views=views, max_file_bytes=settings.max_file_bytes),
            delivery=Delivery(
                images=images,
                exporter=Exporter(artifacts=parts.artifacts, kvm=settings.kvm, parallel=settings.parallel_exports),
                stall_seconds=settings.export_stall_seconds,
            ),
        )
        storage = StorageServicer(
            Storage(
                database=parts.database,
                locations=parts.locations,
                publications=parts.publications,
                images=images,
                outbox=parts.outbox,
                events=parts.events,
            )
        )
        registries = RegistryServicer(registries=parts.registries, clients=parts.registry_clients)

        def add(server: grpc.aio.Server) -> None:
            image_pb2_grpc.add_ImageServiceServicer_to_server(servicer, server)
            storage_pb2_grpc.add_StorageServiceServicer_to_server(storage, server)
            registry_pb2_grpc.add_RegistryServiceServicer_to_server(registries, server)

        yield Server(
            listen=settings.api_address,
            services=[SERVICE_NAME, STORAGE_SERVICE, REGISTRY_SERVICE],
            add=add,
            interceptors=[Boundary(verifier=verifier)],
            background=[parts.events.run, secrets.run, parts.outbox.run, views.run],
        )
