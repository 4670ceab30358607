"""Signing keys in the database. What takes a `transaction` is a part of the caller's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, select, update

from uhm_auth.models import SigningKeyRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database

__all__ = ["KeyState", "SigningKeyStore", "StoredKey"]


class KeyState(StrEnum):
    """A key is published before it signs, and goes on verifying when it no longer does: next, signing, retired."""

    NEXT = "next"
    SIGNING = "signing"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key as it is stored: `public` is the `x` of its JWK, `sealed` its private part. Times are in seconds."""

    id: str
    state: KeyState
    public: str
    sealed: bytes | None = field(repr=False)
    signing_at: int | None = None
    expires_at: int | None = None


class SigningKeyStore:
    """The only place that knows the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, *, now: int) -> list[StoredKey]:
        """Those that sign or verify, the oldest first."""
        async with self._database.read() as transaction:
            return await self.find(transaction, now=now)

    async def find(self, transaction: AsyncSession, *, now: int) -> list[StoredKey]:
        """Those that sign or verify, the oldest first."""
        good = SigningKeyRow.expires_at.is_(None) | (SigningKeyRow.expires_at > now)
        query = select(SigningKeyRow).where(good).order_by(SigningKeyRow.created_at, SigningKeyRow.id)
        return [_stored(row) for row in await transaction.scalars(query)]

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[AsyncSession]:
        """A transaction for changes: they come one after the other, also those of other processes."""
        async with self._database.write() as transaction:
            await self._database.serialise(transaction, SigningKeyRow.__tablename__)
            yield transaction

    async def add(self, transaction: AsyncSession, key: StoredKey, *, now: int) -> None:
        """Stores a new key."""
        row = {
            "id": key.id,
            "state": key.state.value,
            "public": key.public,
            "sealed": key.sealed,
            "created_at": now,
            "signing_at": key.signing_at,
        }
        await transaction.execute(insert(SigningKeyRow).values(row))

    async def promote(self, transaction: AsyncSession, key_id: str, *, now: int) -> None:
        """Has a key sign from now on."""
        await self._set(transaction, key_id, state=KeyState.SIGNING.value, signing_at=now)

    async def retire(self, transaction: AsyncSession, key_id: str, *, now: int, expires_at: int) -> None:
        """Has a key sign nothing any more, for which its private part is deleted, and verify until it expires."""
        state = KeyState.RETIRED.value
        await self._set(transaction, key_id, state=state, sealed=None, retired_at=now, expires_at=expires_at)

    async def delete_expired(self, *, now: int) -> int:
        """Deletes keys whose signatures have all expired; answers how many."""
        async with self._database.write() as transaction:
            gone = await transaction.execute(delete(SigningKeyRow).where(SigningKeyRow.expires_at <= now))
            return cast("CursorResult[Any]", gone).rowcount

    async def _set(self, transaction: AsyncSession, key_id: str, **values: object) -> None:
        await transaction.execute(update(SigningKeyRow).where(SigningKeyRow.id == key_id).values(values))


def _stored(row: SigningKeyRow) -> StoredKey:
    return StoredKey(
        id=row.id,
        state=KeyState(row.state),
        public=row.public,
        sealed=row.sealed,
        signing_at=row.signing_at,
        expires_at=row.expires_at,
    )
