"""Databases: SQLite on one machine, PostgreSQL beyond; short transactions; migrations at start."""

from __future__ import annotations

import zlib
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from uhm_common.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection, MetaData

__all__ = ["Database", "DatabaseUnavailable"]

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=15000")


class DatabaseUnavailable(Unavailable, SQLAlchemyError):  # type: ignore[misc] # of both `code`s the first counts
    """The database cannot be reached, or went away; also a SQLAlchemyError, for what goes on in spite of those."""


class Database:
    """Sessions on one database.

    With SQLite a transaction that writes takes the write lock at its beginning (BEGIN IMMEDIATE): one that read first
    and then wanted to write would fail instead of waiting.
    """

    def __init__(self, url: str) -> None:
        """Connects when first used. Raises FailedPrecondition where a SQLite file cannot be made."""
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        if self._sqlite:
            _make_private_file(make_url(url).database)
        self._engine = create_async_engine(url, pool_pre_ping=not self._sqlite, hide_parameters=True)
        if self._sqlite:
            _tune_sqlite(self._engine)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for reading. Raises DatabaseUnavailable."""
        async with self._connection() as connection, AsyncSession(connection, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction, committed at the end, rolled back on an exception.

        Raises DatabaseUnavailable; where the connection broke at the end, it may have been committed.
        """
        async with self._writing() as connection, AsyncSession(connection, expire_on_commit=False) as session:
            yield session
            await session.flush()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with self._connection() as connection:
            await connection.execution_options(uhm_writes=True)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._engine.connect())
            except (SQLAlchemyError, OSError) as error:
                raise _unavailable() from error
            try:
                yield connection
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise _unavailable() from error
                raise

    async def serialise(self, session: AsyncSession, key: str) -> None:
        """Until the session's writing transaction ends, no other one gets past here with the same key.

        What it then counts cannot be changed under it by others who do the same.
        """
        if not self._sqlite:  # whose writing transactions come one after the other anyway
            await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})

    async def migrate(self, *, migrations: Path, metadata: MetaData, version_table: str) -> None:
        """Brings the schema up to date. Several processes may do so at once: one does it, the others find it done."""
        async with self._writing() as connection:
            if not self._sqlite:
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                await connection.execute(lock, {"key": zlib.crc32(version_table.encode())})
            await connection.run_sync(_upgrade, migrations, metadata, version_table)

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()


def _unavailable() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "The database does not answer.", hint="Try again, or see whether it runs where UHM_DATABASE_URL says."
    )


def _upgrade(connection: Connection, migrations: Path, metadata: MetaData, version_table: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def revisions(current: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", current)  # noqa: SLF001 - what alembic's own `upgrade` command calls

    with EnvironmentContext(config, script, fn=revisions) as environment:
        environment.configure(connection=connection, target_metadata=metadata, version_table=version_table)
        environment.run_migrations()


def _make_private_file(name: str | None) -> None:
    """Makes SQLite's file, where there is none, so that only we read it; SQLite gives its journals the same mode."""
    if not name or name == ":memory:":
        return
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise FailedPrecondition(
            f"The database {path} cannot be written: {error.strerror}.",
            hint="Set UHM_STATE_DIR to a directory that is yours, or UHM_DATABASE_URL.",
        ) from error


def _tune_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("uhm_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
