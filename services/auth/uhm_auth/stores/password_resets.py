"""Codes that set a new password, in the database: one per user.

What takes a `transaction` is a part of the caller's; the rest has one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, select

from uhm_auth.models import PasswordResetRow, UserRow

if TYPE_CHECKING:
    from sqlalchemy import CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.stores.users import User
    from uhm_common.database import Database

__all__ = ["PasswordResetStore"]


class PasswordResetStore:
    """The only place that knows the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(
        self, transaction: AsyncSession, user: User, *, code_hash: str, creator: str, now: int, expires_at: int
    ) -> None:
        """Keeps a code for a user instead of the one before it."""
        await self.drop(transaction, user)
        row = {
            "user_id": user.id,
            "code_hash": code_hash,
            "creator": creator,
            "created_at": now,
            "expires_at": expires_at,
        }
        await transaction.execute(insert(PasswordResetRow).values(row))

    async def code_hash(self, username: str, *, now: int) -> str | None:
        """The hash of the code that is good for that user now, or None."""
        query = (
            select(PasswordResetRow.code_hash)
            .join(UserRow)
            .where(UserRow.username == username, UserRow.deleted_at.is_(None), PasswordResetRow.expires_at > now)
        )
        async with self._database.read() as transaction:
            return await transaction.scalar(query)

    async def use(self, transaction: AsyncSession, user: User, *, code_hash: str, now: int) -> bool:
        """Uses a code up; answers False where it was not good any more."""
        good = (
            PasswordResetRow.user_id == user.id,
            PasswordResetRow.code_hash == code_hash,
            PasswordResetRow.expires_at > now,
        )
        used = await transaction.execute(delete(PasswordResetRow).where(*good))
        return bool(cast("CursorResult[Any]", used).rowcount)

    async def drop(self, transaction: AsyncSession, user: User) -> None:
        """Makes the user's code good for nothing, if there is one."""
        await transaction.execute(delete(PasswordResetRow).where(PasswordResetRow.user_id == user.id))

    async def withdraw_all(self, transaction: AsyncSession, *, creator: str) -> None:
        """Withdraws what an administrator has made who is none any more."""
        await transaction.execute(delete(PasswordResetRow).where(PasswordResetRow.creator == creator))

    async def delete_expired(self, *, now: int) -> None:
        """Forgets those that nobody can use any more."""
        async with self._database.write() as transaction:
            await transaction.execute(delete(PasswordResetRow).where(PasswordResetRow.expires_at <= now))
