"""API keys in the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import and_, delete, func, insert, or_, select, update

from uhm_auth.audit import append
from uhm_auth.errors import ApiKeyNotFound, TooManyApiKeys
from uhm_auth.models import ApiKeyRow, UserRow
from uhm_auth.stores.revocations import add_revocations
from uhm_common.callers.revocations import Revocation

if TYPE_CHECKING:
    from sqlalchemy import CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.audit import Entry
    from uhm_common.database import Database

__all__ = ["ApiKey", "ApiKeyStore", "KeyOwner", "revoke_keys_of", "suspend_keys_of"]

REVOKED_SECONDS = 15
"""For how long services refuse a key, having forgotten what they knew of it: until no older answer is under way."""
USED_EVERY_SECONDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, of which only a hash of the secret part is kept. Times are in seconds since the epoch."""

    id: str
    name: str
    scopes: tuple[str, ...]
    secret_hash: str = field(repr=False)
    created_at: int
    used_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOwner:
    """Whose a key is, as they are now."""

    username: str
    role: str
    gone: bool  # disabled or deleted


class ApiKeyStore:
    """The only place that knows the table: one short transaction per method. A user is named by the username."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ApiKey, *, username: str, most: int, entry: Entry) -> None:
        """Keeps a new key, and of the user's that have ended the last `most`.

        Raises TooManyApiKeys where the user has `most` that are good already.
        """
        async with self._database.write() as transaction:
            await self._database.serialise(transaction, f"auth_api_keys {username}")
            user_id = await transaction.scalar(select(UserRow.id).where(UserRow.username == username))
            good = (
                ApiKeyRow.user_id == user_id,
                ApiKeyRow.revoked_at.is_(None),
                or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > key.created_at),
            )
            count = await transaction.scalar(select(func.count()).select_from(ApiKeyRow).where(*good)) or 0
            if count >= most:
                raise TooManyApiKeys(f"You have {count} API keys, as many as there may be.", hint="Delete one.")
            row = {
                "id": key.id,
                "user_id": user_id,
                "name": key.name,
                "scopes": " ".join(key.scopes),
                "secret_hash": key.secret_hash,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
            }
            await transaction.execute(insert(ApiKeyRow).values(row))
            ended = (ApiKeyRow.user_id == user_id, ~and_(*good))
            newest = (func.coalesce(ApiKeyRow.revoked_at, ApiKeyRow.expires_at).desc(), ApiKeyRow.id)
            too_many = select(ApiKeyRow.id).where(*ended).order_by(*newest).offset(most)
            await transaction.execute(delete(ApiKeyRow).where(ApiKeyRow.id.in_(too_many)))
            await append(transaction, entry)

    async def find(self, key_id: str) -> tuple[ApiKey, KeyOwner] | None:
        """The key of that id, whatever its state, and whose it is."""
        query = select(ApiKeyRow, UserRow).join(UserRow, UserRow.id == ApiKeyRow.user_id).where(ApiKeyRow.id == key_id)
        async with self._database.read() as transaction:
            found = (await transaction.execute(query)).one_or_none()
        if found is None:
            return None
        row, user = found
        gone = user.disabled_at is not None or user.deleted_at is not None
        return _key(row), KeyOwner(username=user.username, role=user.role, gone=gone)

    async def page(self, username: str, *, before: tuple[int, str] | None, limit: int) -> list[ApiKey]:
        """A user's keys that were not deleted, the newest first: those behind that creation time and id."""
        query = select(ApiKeyRow).join(UserRow, UserRow.id == ApiKeyRow.user_id)
        query = query.where(UserRow.username == username, ApiKeyRow.revoked_at.is_(None))
        if before is not None:
            created_at, key_id = before
            same = and_(ApiKeyRow.created_at == created_at, ApiKeyRow.id < key_id)
            query = query.where(or_(ApiKeyRow.created_at < created_at, same))
        query = query.order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id.desc()).limit(limit)
        async with self._database.read() as transaction:
            return [_key(row) for row in await transaction.scalars(query)]

    async def revoke(self, key_id: str, *, username: str, now: int, entry: Entry) -> None:
        """Ends a key for good, and has every service told. Raises ApiKeyNotFound."""
        owner = select(UserRow.id).where(UserRow.username == username).scalar_subquery()
        matches = (ApiKeyRow.id == key_id, ApiKeyRow.user_id == owner, ApiKeyRow.revoked_at.is_(None))
        async with self._database.write() as transaction:
            changed = await transaction.execute(update(ApiKeyRow).where(*matches).values(revoked_at=now))
            if cast("CursorResult[Any]", changed).rowcount == 0:
                raise ApiKeyNotFound(f"You have no API key {key_id!r}.", hint="Look at the list.")
            await add_revocations(transaction, [Revocation(id=key_id, expires_at=now + REVOKED_SECONDS)], now=now)
            await append(transaction, entry)

    async def note_use(self, key: ApiKey, *, now: int) -> None:
        """Notes when a key was used, at most every USED_EVERY_SECONDS."""
        if key.used_at is not None and now - key.used_at < USED_EVERY_SECONDS:
            return
        async with self._database.write() as transaction:
            await transaction.execute(update(ApiKeyRow).where(ApiKeyRow.id == key.id).values(used_at=now))

    async def forget(self, *, before: int) -> int:
        """Deletes keys that were deleted or expired before that time; answers how many."""
        ended = or_(ApiKeyRow.revoked_at < before, ApiKeyRow.expires_at < before)
        async with self._database.write() as transaction:
            return cast("CursorResult[Any]", await transaction.execute(delete(ApiKeyRow).where(ended))).rowcount


async def revoke_keys_of(transaction: AsyncSession, user_id: int, *, now: int) -> None:
    """Ends a user's keys for good, in the transaction that deletes the user."""
    await suspend_keys_of(transaction, user_id, now=now)
    good = (ApiKeyRow.user_id == user_id, ApiKeyRow.revoked_at.is_(None))
    await transaction.execute(update(ApiKeyRow).where(*good).values(revoked_at=now))


async def suspend_keys_of(transaction: AsyncSession, user_id: int, *, now: int) -> None:
    """Has services forget what they know of a user's keys, refuse them for some seconds, and then ask again.

    For whoever disables or deletes a user, or changes the role, in that transaction.
    """
    ids = await transaction.scalars(
        select(ApiKeyRow.id).where(ApiKeyRow.user_id == user_id, ApiKeyRow.revoked_at.is_(None)).order_by(ApiKeyRow.id)
    )
    suspensions = [Revocation(id=key_id, expires_at=now + REVOKED_SECONDS) for key_id in ids]
    await add_revocations(transaction, suspensions, now=now)


def _key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=tuple(row.scopes.split()),
        secret_hash=row.secret_hash,
        created_at=row.created_at,
        used_at=row.used_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
