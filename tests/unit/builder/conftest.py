"""The builder's parts on SQLite and a temporary store, with a NATS that is a list."""

from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from uhm_builder.app import MIGRATIONS
from uhm_builder.contexts import Contexts
from uhm_builder.layers import LayerMaker
from uhm_builder.models import OUTBOX, VERSION_TABLE, Base
from uhm_builder.retention import Retention
from uhm_builder.service import Images
from uhm_builder.store import ImageStore
from uhm_common.artifacts import ArtifactStore
from uhm_common.database import Database
from uhm_common.errors import Unavailable
from uhm_common.outbox import Outbox

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
    return Contexts(tmp_path / "contexts", database=database, max_bytes=1000)


@pytest.fixture
def artifacts(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def images(database, store, outbox, events, contexts):
    return Images(database=database, store=store, outbox=outbox, events=events, contexts=contexts)


@pytest.fixture
def retention(artifacts, database, store, outbox, contexts):
    return Retention(artifacts=artifacts, database=database, store=store, outbox=outbox, contexts=contexts)


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
def make_tar():
    """Makes a tar archive out of names and contents."""

    def make(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return buffer.getvalue()

    return make
