"""Events that leave after the commit: written in the transaction that causes them, sent by a relay, then deleted.

A service puts `outbox_table(metadata)` in its schema. The relay may send an event twice, after a crash between sending
and deleting; the message id makes JetStream store it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, BigInteger, Column, Integer, MetaData, String, Table, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from uhm_common.errors import Unavailable
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database
    from uhm_common.events import EventBus

__all__ = ["Outbox", "outbox_table"]

log = get_logger()

POLL_SECONDS = 1.0
BATCH = 100


def outbox_table(metadata: MetaData, *, name: str) -> Table:
    """The table of events that wait to be sent."""
    return Table(
        name,
        metadata,
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("subject", String(200), nullable=False),
        Column("message_id", String(100), nullable=False),
        Column("payload", JSON, nullable=False),
    )


class Outbox:
    """Takes events inside a transaction and sends them after it."""

    def __init__(self, table: Table, *, database: Database, events: EventBus) -> None:
        self._table = table
        self._database = database
        self._events = events
        self._added = asyncio.Event()

    async def add(
        self, session: AsyncSession, subject: str, payload: dict[str, Any], *, message_id: str | None = None
    ) -> None:
        """Adds an event to the session's transaction."""
        row = {"subject": subject, "message_id": message_id or uuid.uuid4().hex, "payload": payload}
        await session.execute(insert(self._table).values(row))

    def wake(self) -> None:
        """Has the relay look at once; call it after the commit."""
        self._added.set()

    async def run(self) -> None:
        """Sends what waits, in order, until cancelled. While NATS or the database is away everything waits."""
        while True:
            self._added.clear()
            await self._events.wait_connected()
            try:
                while await self._send_batch():
                    pass
            except (Unavailable, SQLAlchemyError, OSError) as error:
                log.warning("outbox.waits", error=repr(error))
                await asyncio.sleep(POLL_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):  # wait_for can lose a cancellation (bpo-37658)
                    await self._added.wait()

    async def _send_batch(self) -> bool:
        """Sends up to BATCH events; answers whether there may be more."""
        async with self._database.read() as session:
            query = select(self._table).order_by(self._table.c.number).limit(BATCH)
            waiting = (await session.execute(query)).all()
        for row in waiting:
            await self._events.publish_durably(row.subject, row.payload, message_id=row.message_id)
            # Another process may have sent and deleted it meanwhile, and SQLite gives the last number again.
            sent = (self._table.c.number == row.number, self._table.c.message_id == row.message_id)
            async with self._database.write() as session:
                await session.execute(delete(self._table).where(*sent))
        return len(waiting) == BATCH
