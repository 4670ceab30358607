"""Transactions on SQLite, many at once, and migrations."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import grpc
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from uhm_common.database import Database, DatabaseUnavailable
from uhm_common.errors import FailedPrecondition, Unavailable

METADATA = MetaData()
COUNTERS = Table("counters", METADATA, Column("id", Integer, primary_key=True), Column("value", Integer))
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {revision!r}, {down!r}, None, None


def upgrade():
    {upgrade}
"""
COUNT = """
import asyncio, sys
from sqlalchemy import text
from uhm_common.database import Database

async def main():
    database = Database(sys.argv[1])
    for _ in range(25):
        async with database.write() as session:
            value = await session.scalar(text("SELECT value FROM counters WHERE id = 1"))
            await session.execute(text("UPDATE counters SET value = :value WHERE id = 1"), {"value": value + 1})
    await database.close()

asyncio.run(main())
"""
MIGRATE = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import MetaData
from uhm_common.database import Database

async def main():
    database = Database(sys.argv[1])
    await database.migrate(migrations=Path(sys.argv[2]), metadata=MetaData(), version_table="test_version")
    await database.close()

asyncio.run(main())
"""


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'state' / 'test.db'}"


@pytest.fixture
async def database(url):
    database = Database(url)
    async with database.write() as session:
        await session.run_sync(lambda sync: METADATA.create_all(sync.connection()))
        await session.execute(insert(COUNTERS).values(id=1, value=0))
    yield database
    await database.close()


@pytest.fixture
def migrations(tmp_path):
    """Two revisions, the second of which needs the first."""
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    first = 'op.create_table("counters", sa.Column("id", sa.Integer, primary_key=True))'
    second = 'op.add_column("counters", sa.Column("value", sa.Integer))'
    (versions / "0001.py").write_text(REVISION.format(revision="0001", down=None, upgrade=first))
    (versions / "0002.py").write_text(REVISION.format(revision="0002", down="0001", upgrade=second))
    return versions.parent


async def value_of(database) -> int:
    async with database.read() as session:
        return await session.scalar(select(COUNTERS.c.value))


async def run_python(script, *arguments) -> int:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *map(str, arguments))
    return await child.wait()


async def test_the_file_is_ours_alone(database, tmp_path):
    for file in (tmp_path / "state").glob("test.db*"):
        assert file.stat().st_mode & 0o077 == 0, file


async def test_a_directory_that_cannot_be_made():
    with pytest.raises(FailedPrecondition, match=r"/proc/nobody/test\.db cannot be written"):
        Database("sqlite+aiosqlite:////proc/nobody/test.db")


async def test_an_exception_rolls_back(database):
    async def fail():
        async with database.write() as session:
            await session.execute(update(COUNTERS).values(value=9))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await value_of(database) == 0


async def test_an_error_does_not_tell_what_was_to_be_stored(database):
    for table in ("counters", "nowhere"):
        with pytest.raises(DBAPIError) as caught:
            async with database.write() as session:
                await session.execute(text(f"INSERT INTO {table} VALUES (1, :value)"), {"value": "hunter2"})
        assert "hunter2" not in str(caught.value) + repr(caught.value)


async def test_a_database_that_is_not_there(free_port):
    away = Database(f"postgresql+asyncpg://127.0.0.1:{free_port()}/nothing")
    for begin in (away.read, away.write):
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            async with begin() as session:
                await session.execute(text("SELECT 1"))
    assert issubclass(DatabaseUnavailable, Unavailable)
    assert DatabaseUnavailable("Away.").code is grpc.StatusCode.UNAVAILABLE
    await away.close()


async def test_a_database_that_goes_away(database):
    """A driver says that a connection is lost, and SQLAlchemy which of its errors means that."""
    lost = OperationalError("SELECT", {}, Exception("lost"), connection_invalidated=True)
    for begin in (database.read, database.write):
        with pytest.raises(DatabaseUnavailable):
            async with begin():
                raise lost
    with pytest.raises(FileNotFoundError):
        async with database.read():
            raise FileNotFoundError


async def test_a_constraint_that_is_broken_rolls_back_and_is_told(database):
    async def fail():
        async with database.write() as session:
            await session.execute(update(COUNTERS).values(value=9))
            await session.execute(insert(COUNTERS).values(id=1, value=0))

    with pytest.raises(IntegrityError):
        await fail()
    assert await value_of(database) == 0


async def test_who_reads_then_writes_waits_for_others_who_do(database):
    async def count():
        async with database.write() as session:
            value = await session.scalar(select(COUNTERS.c.value))
            await asyncio.sleep(0)
            await session.execute(update(COUNTERS).values(value=value + 1))

    await asyncio.gather(*(count() for _ in range(40)))

    assert await value_of(database) == 40


async def test_readers_do_not_wait_for_a_writer(database):
    async with database.write() as session:
        await session.execute(update(COUNTERS).values(value=9))
        assert await asyncio.wait_for(value_of(database), 2) == 0
    assert await value_of(database) == 9


async def test_writers_in_several_processes(database, url):
    assert await asyncio.gather(*(run_python(COUNT, url) for _ in range(3))) == [0, 0, 0]
    assert await value_of(database) == 75


async def test_foreign_keys_are_enforced(database):
    async with database.read() as session:
        assert await session.scalar(text("PRAGMA foreign_keys")) == 1
        assert await session.scalar(text("PRAGMA journal_mode")) == "wal"


async def test_migrations_run_once_and_again_without_harm(url, migrations):
    database = Database(url)
    for _ in range(2):
        await database.migrate(migrations=migrations, metadata=METADATA, version_table="test_version")
        async with database.read() as session:
            assert await session.scalar(text("SELECT version_num FROM test_version")) == "0002"
            assert (await session.execute(select(COUNTERS.c.value))).all() == []
    await database.close()


async def test_a_migration_that_fails_changes_nothing(url, migrations):
    broken = migrations / "versions" / "0002.py"
    broken.write_text(REVISION.format(revision="0002", down="0001", upgrade='raise RuntimeError("broken")'))
    database = Database(url)
    with pytest.raises(RuntimeError, match="broken"):
        await database.migrate(migrations=migrations, metadata=METADATA, version_table="test_version")

    async with database.read() as session:
        assert (await session.execute(text("SELECT name FROM sqlite_master"))).all() == []
    await database.close()


async def test_several_processes_migrate_at_once(url, migrations):
    assert await asyncio.gather(*(run_python(MIGRATE, url, migrations) for _ in range(3))) == [0, 0, 0]


def test_two_services_share_one_database(url, migrations):
    """Each has its own table of versions."""
    first = [sys.executable, "-c", MIGRATE, url, str(migrations)]
    subprocess.run(first, check=True, timeout=60)
    other = MIGRATE.replace("test_version", "other_version")
    for file in (migrations / "versions").glob("*.py"):
        file.write_text(file.read_text().replace("counters", "others"))
    subprocess.run([sys.executable, "-c", other, url, str(migrations)], check=True, timeout=60)
