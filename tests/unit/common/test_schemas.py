"""Models and migrations say the same: alembic's comparison finds nothing to do.

A service joins by being named in SERVICES. Its `models` has `VERSION_TABLE` and a declarative `Base`; `migrations` is
beside it.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from uhm_common.database import Database

SERVICES = ["auth", "builder", "machines"]


@pytest.fixture(params=SERVICES)
def service(request) -> str:
    return request.param


@pytest.fixture
def models(service):
    return importlib.import_module(f"uhm_{service}.models")


@pytest.fixture
async def database(models, tmp_path):
    """A database that the service's migrations have made."""
    migrations = Path(models.__file__).parent / "migrations"
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    await database.migrate(migrations=migrations, metadata=models.Base.metadata, version_table=models.VERSION_TABLE)
    yield database
    await database.close()


async def test_migrations_make_what_the_models_say(database, models):
    def differences(session):
        options = {"compare_type": True, "compare_server_default": True, "version_table": models.VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(session.connection(), opts=options), models.Base.metadata)

    async with database.read() as session:
        assert await session.run_sync(differences) == []


async def test_tables_carry_the_name_of_their_service(database, service):
    """All services may share one database."""
    async with database.read() as session:
        names = await session.run_sync(lambda sync: inspect(sync.connection()).get_table_names())
    assert [name for name in names if not name.startswith(service.rstrip("s"))] == []
