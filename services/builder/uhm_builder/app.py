"""The wiring of the builder's API, and of what it shares with the worker."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from uhm_builder.contexts import Contexts
from uhm_builder.models import OUTBOX, VERSION_TABLE, Base
from uhm_builder.retention import Retention
from uhm_builder.service import Images
from uhm_builder.servicer import SERVICE_NAME, ImageServicer
from uhm_builder.store import ImageStore
from uhm_builder.watch import Watcher
from uhm_common.artifacts import ArtifactStore
from uhm_common.bootstrap import Server
from uhm_common.boundary import Boundary
from uhm_common.database import Database
from uhm_common.events import EventBus
from uhm_common.identity import AuthServiceKeys, TokenVerifier
from uhm_common.outbox import Outbox
from uhm_common.settings import database_url
from uhmalguhm.builder.v1 import image_pb2_grpc

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
    retention: Retention


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
        contexts = Contexts(settings.contexts_dir, database=database, max_bytes=settings.max_context_bytes)
        yield Parts(
            artifacts=artifacts,
            database=database,
            store=store,
            events=events,
            outbox=outbox,
            contexts=contexts,
            retention=Retention(artifacts=artifacts, database=database, store=store, outbox=outbox, contexts=contexts),
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
        images = Images(
            database=parts.database,
            store=parts.store,
            outbox=parts.outbox,
            events=parts.events,
            contexts=parts.contexts,
        )
        servicer = ImageServicer(
            images=images,
            watcher=Watcher(store=parts.store, events=parts.events),
            retention=parts.retention,
            contexts=parts.contexts,
        )
        yield Server(
            listen=settings.api_address,
            services=[SERVICE_NAME],
            add=partial(image_pb2_grpc.add_ImageServiceServicer_to_server, servicer),
            interceptors=[Boundary(verifier=verifier)],
            background=[parts.events.run, parts.outbox.run],
        )
