"""Buckets of failed attempts, which all replicas share; what they mean is `uhm_auth.throttle`'s to say."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, select

from uhm_auth.models import FailureRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database

__all__ = ["Bucket", "Buckets", "FailureStore"]

LOCK = "auth_failures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What is in a bucket. Times are in milliseconds."""

    level: float
    last_at: int
    expires_at: int


class Buckets:
    """Some buckets in a transaction which nobody else's passes: what is read stays true until it ends."""

    def __init__(self, transaction: AsyncSession, rows: dict[str, FailureRow]) -> None:
        self._transaction = transaction
        self._rows = rows

    def __getitem__(self, name: str) -> Bucket | None:
        """A bucket, or None for an empty one."""
        row = self._rows.get(name)
        return None if row is None else Bucket(level=row.level, last_at=row.last_at, expires_at=row.expires_at)

    def __setitem__(self, name: str, bucket: Bucket) -> None:
        """Fills a bucket."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = FailureRow(bucket=name)
            self._transaction.add(row)
        row.level, row.last_at, row.expires_at = bucket.level, bucket.last_at, bucket.expires_at

    async def empty(self, *names: str) -> None:
        """Empties buckets."""
        for name in names:
            if (row := self._rows.pop(name, None)) is not None:
                await self._transaction.delete(row)


class FailureStore:
    """The only place that knows the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def buckets(self, names: Sequence[str]) -> AsyncIterator[Buckets]:
        """These buckets, to be read and changed by one at a time; committed at the end of the block."""
        async with self._database.write() as transaction:
            await self._database.serialise(transaction, LOCK)
            rows = await transaction.scalars(select(FailureRow).where(FailureRow.bucket.in_(names)))
            yield Buckets(transaction, {row.bucket: row for row in rows})

    async def sweep(self, *, now: int) -> int:
        """Deletes buckets of which nothing counts any more; answers how many. `now` is in milliseconds."""
        async with self._database.write() as transaction:
            await self._database.serialise(transaction, LOCK)
            swept = await transaction.execute(delete(FailureRow).where(FailureRow.expires_at <= now))
            return cast("CursorResult[Any]", swept).rowcount
