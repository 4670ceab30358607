"""The builder's parts on SQLite and a temporary store, with a NATS that is a list."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.archives import tar_of
from uhm_builder.collector import Collector
from uhm_builder.contexts import Contexts
from uhm_builder.hosts import HostRules
from uhm_builder.images import ImageWish, Layer, Status
from uhm_builder.layers import LayerMaker
from uhm_builder.models import IDEMPOTENCY_KEYS, OUTBOX, VERSION_TABLE, Base
from uhm_builder.outputs import Outputs
from uhm_builder.parts import MIGRATIONS
from uhm_builder.quotas import Quota, Quotas
from uhm_builder.retention import Retention, Rules
from uhm_builder.secrets import HeldSecrets
from uhm_builder.service import Images
from uhm_builder.storage.locations import Locations
from uhm_builder.storage.publications import PublicationStore
from uhm_builder.store import ImageStore
from uhm_common.artifacts import ArtifactStore, locked
from uhm_common.database import Database
from uhm_common.errors import Unavailable
from uhm_common.idempotency import IdempotencyKeys
from uhm_common.outbox import Outbox
from uhm_common.paging import PageTokens
from uhm_common.vault import open_vault

MKFS = Path(__file__).resolve().parents[3] / "build" / "tools" / "mkfs.erofs"


@dataclass
class NoEvents:
    """An EventBus whose server is down; it remembers what was published."""

    published: list[tuple[str, dict]] = field(default_factory=list)

    async def publish(self, subject, payload):
        self.published.append((subject, payload))

    @property
    def client(self):
        raise Unavailable("NATS does not answer.")


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'builder.db'}")
    await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
    yield database
    await database.close()


@pytest.fixture
def store(database):
    return ImageStore(database)


@pytest.fixture
def events():
    return NoEvents()


@pytest.fixture
def outbox(database, events):
    return Outbox(OUTBOX, database=database, events=events)


@pytest.fixture
def contexts(tmp_path, database):
    return Contexts(tmp_path / "contexts", database=database, max_bytes=1000, max_bytes_in_all=10_000)


@pytest.fixture
def artifacts(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def quotas(database, store):
    return Quotas(Quota(), database=database, store=store)


@pytest.fixture
def secrets(store, events):
    return HeldSecrets(store=store, events=events)


@pytest.fixture
def outputs(database):
    return Outputs(database)


@pytest.fixture
def vault(tmp_path):
    return open_vault(tmp_path / "keys" / "secrets.key")


@pytest.fixture
def page_tokens(vault):
    return PageTokens(vault)


@pytest.fixture
def idempotency_keys(database):
    return IdempotencyKeys(IDEMPOTENCY_KEYS, database=database)


@pytest.fixture
def locations(database, vault, tmp_path):
    return Locations(database=database, vault=vault, directories=(f"{tmp_path}/published/{{user}}",), rules=HostRules())


@pytest.fixture
def publications(database):
    return PublicationStore(database)


@pytest.fixture
def images(database, store, outbox, events, contexts, quotas, secrets, locations, page_tokens):
    return Images(
        database=database,
        store=store,
        outbox=outbox,
        events=events,
        contexts=contexts,
        quotas=quotas,
        secrets=secrets,
        locations=locations,
        page_tokens=page_tokens,
    )


@pytest.fixture
def collector(artifacts, database, store):
    """Without a grace period."""
    return Collector(artifacts=artifacts, database=database, store=store, grace_seconds=0)


@pytest.fixture
def retain(artifacts, database, store, outbox, contexts, collector):
    """Makes a Retention that follows rules."""

    def retain(**rules):
        return Retention(
            artifacts=artifacts,
            database=database,
            store=store,
            outbox=outbox,
            contexts=contexts,
            collector=collector,
            rules=Rules(**rules),
        )

    return retain


@pytest.fixture
def retention(retain):
    return retain()


@pytest.fixture
def ready(images, store, database, artifacts):
    """Makes an image of layers, with files where they belong."""

    async def ready(name, disk, diff_ids, *, owner="alice", base="sha256:" + "0" * 64, taking_over=False):
        image_id = await images.create(ImageWish(name=name), owner=owner)
        claim = await store.claim(image_id, now=2**62, lease_until=2**62)
        layers = [Layer(diff_id=diff_id, size=4096) for diff_id in diff_ids]
        await store.record(claim, layers=layers, disk_digest=disk)
        for diff_id in diff_ids:
            artifacts.layer(diff_id).parent.mkdir(parents=True, exist_ok=True)
            artifacts.layer(diff_id).write_bytes(b"x" * 4096)
        artifacts.disk(disk).mkdir(parents=True, exist_ok=True)
        (artifacts.disk(disk) / "disk.vmdk").write_text("descriptor")
        record = {"digest": disk, "base": base, "layers": diff_ids, "size": 1}
        (artifacts.disk(disk) / "disk.json").write_text(json.dumps(record))
        async with database.write() as session:
            await store.finish(session, claim, {"status": Status.READY, "digest": disk})
            if taking_over:
                reference = f"{name}:latest"
                await store.take_over(
                    session, owner=owner, image_id=image_id, reference=reference, disk=disk, now=time.time_ns()
                )
        return await store.get(image_id)

    return ready


@pytest.fixture
def sweep_under_way(artifacts):
    """A block at whose beginning the staging directory is swept, for a second in which the event loop has to go on."""

    @asynccontextmanager
    async def sweep_under_way():
        gaps = []

        async def tick():
            while True:
                begun = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - begun)

        lock = ExitStack()
        lock.enter_context(locked(artifacts.root / "staging.lock", exclusive=True))
        threading.Timer(1, lock.close).start()
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        yield
        await asyncio.sleep(0.02)
        ticking.cancel()
        assert max(gaps) < 0.8

    return sweep_under_way


@pytest.fixture
def announced(database):
    """Answers what other services are to hear of images, in order: subject, payload, message id."""

    async def announced():
        query = select(OUTBOX).where(OUTBOX.c.subject.startswith("uhm.images.")).order_by(OUTBOX.c.number)
        async with database.read() as session:
            return [(row.subject, row.payload, row.message_id) for row in (await session.execute(query)).all()]

    return announced


@pytest.fixture
def mkfs():
    found = MKFS if MKFS.exists() else shutil.which("mkfs.erofs")
    if found is None:
        pytest.skip("mkfs.erofs is not there; `make setup` builds it")
    return str(found)


@pytest.fixture
def maker(artifacts, mkfs):
    return LayerMaker(artifacts, mkfs=mkfs, max_bytes=64 << 20, parallel=2)


@pytest.fixture
def forgotten(database, store):
    """Deletes an image's row and nothing else."""

    async def forgotten(image):
        async with database.write() as session:
            await store.delete(session, image.id)

    return forgotten


@pytest.fixture
def make_tar():
    """Makes a tar archive out of names and contents."""

    return tar_of
