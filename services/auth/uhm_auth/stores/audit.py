"""The audit log, read; `uhm_auth.audit` writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from uhm_auth.models import AuditEventRow

if TYPE_CHECKING:
    from uhm_common.database import Database

__all__ = ["AuditFilter", "AuditStore", "RecordedEvent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which events: those that a user caused or was the subject of, of a kind, from a time on, before a time.

    Times are in milliseconds since the epoch. What is empty or None does not matter.
    """

    username: str = ""
    event: str = ""
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as it was recorded. `time` is in milliseconds since the epoch."""

    number: int
    time: int
    event: str
    actor: str
    username: str
    address: str
    request_id: str
    details: dict[str, str]


class AuditStore:
    """Reads the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: AuditFilter, *, before: int | None, limit: int) -> list[RecordedEvent]:
        """Events with numbers below that one, the newest first."""
        query = select(AuditEventRow)
        if before is not None:
            query = query.where(AuditEventRow.number < before)
        if wanted.username:
            concerns = or_(AuditEventRow.username == wanted.username, AuditEventRow.actor == wanted.username)
            query = query.where(concerns)
        if wanted.event:
            query = query.where(AuditEventRow.event == wanted.event)
        if wanted.start is not None:
            query = query.where(AuditEventRow.time >= wanted.start)
        if wanted.end is not None:
            query = query.where(AuditEventRow.time < wanted.end)
        async with self._database.read() as transaction:
            rows = await transaction.scalars(query.order_by(AuditEventRow.number.desc()).limit(limit))
            return [_event(row) for row in rows]


def _event(row: AuditEventRow) -> RecordedEvent:
    return RecordedEvent(
        number=row.number,
        time=row.time,
        event=row.event,
        actor=row.actor,
        username=row.username,
        address=row.address,
        request_id=row.request_id,
        details=json.loads(row.details),
    )
