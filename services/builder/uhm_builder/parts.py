"""What the builder's API and its workers both stand on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_builder.collector import Collector
from uhm_builder.contexts import Contexts
from uhm_builder.models import IDEMPOTENCY_KEYS, OUTBOX, VERSION_TABLE, Base
from uhm_builder.quotas import Quotas
from uhm_builder.registries import Registries
from uhm_builder.retention import Retention
from uhm_builder.sources.challenge import load_credentials
from uhm_builder.sources.clients import RegistryClients
from uhm_builder.storage.locations import Locations
from uhm_builder.storage.publications import PublicationStore
from uhm_builder.store import ImageStore
from uhm_common.artifacts import ArtifactStore
from uhm_common.database import Database
from uhm_common.events import EventBus
from uhm_common.idempotency import IdempotencyKeys
from uhm_common.outbox import Outbox
from uhm_common.paging import PageTokens
from uhm_common.settings import database_url
from uhm_common.vault import open_vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uhm_builder.settings import BuilderSettings
    from uhm_common.vault import Vault

__all__ = ["MIGRATIONS", "Parts", "open_parts"]

MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The shared parts."""

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
    page_tokens: PageTokens
    vault: Vault
    idempotency_keys: IdempotencyKeys


@asynccontextmanager
async def open_parts(settings: BuilderSettings, *, name: str) -> AsyncIterator[Parts]:
    """The parts, with the schema up to date."""
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
        page_tokens = PageTokens(vault)
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
            registries=Registries(database=database, vault=vault, page_tokens=page_tokens),
            registry_clients=RegistryClients(
                mirrors=settings.registry_mirrors,
                credentials=load_credentials(settings.registry_auth_file),
                rules=settings.host_rules,
            ),
            page_tokens=page_tokens,
            vault=vault,
            idempotency_keys=IdempotencyKeys(IDEMPOTENCY_KEYS, database=database),
        )
    finally:
        await database.close()
