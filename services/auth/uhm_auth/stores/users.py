"""Users in the database.

What takes a `transaction` is a part of the caller's; the rest has one of its own. Deleted users are not found: all that
is left of them is that nobody gets their names.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from uhm_auth.errors import NoAdministrator, UsernameTaken
from uhm_auth.models import UserRow
from uhm_common.callers.identity import ADMIN, USER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database

__all__ = ["User", "UserStore", "still_so", "taken"]

NOBODYS = ""
"""The password hash of a deleted user, which no password has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who registered. Times are in seconds since the epoch."""

    id: int
    username: str
    password_hash: str = field(repr=False)
    role: str = USER
    created_at: int
    login_at: int | None = None
    disabled_at: int | None = None

    @property
    def disabled(self) -> bool:
        """Whether the user may not do anything for now."""
        return self.disabled_at is not None

    @property
    def administers(self) -> bool:
        """Whether the user is an administrator who may act as one."""
        return self.role == ADMIN and not self.disabled


class UserStore:
    """The only place that writes the table of users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self, username: str) -> User | None:
        """The user of that name, or None."""
        async with self._database.read() as transaction:
            return await self.find(transaction, username)

    async def page(self, *, after: str, limit: int) -> list[User]:
        """Users by name, from behind that name on."""
        query = (
            select(UserRow)
            .where(UserRow.username > after, UserRow.deleted_at.is_(None))
            .order_by(UserRow.username)
            .limit(limit)
        )
        async with self._database.read() as transaction:
            return [_user(row) for row in await transaction.scalars(query)]

    async def renew_hash(self, user: User, password_hash: str) -> None:
        """Stores the same password in another form, unless it was changed meanwhile."""
        same = (UserRow.id == user.id, UserRow.password_hash == user.password_hash)
        async with self._database.write() as transaction:
            await transaction.execute(update(UserRow).where(*same).values(password_hash=password_hash))

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[AsyncSession]:
        """A transaction for changes of users: they come one after the other, also those of other processes."""
        async with self._database.write() as transaction:
            await self._database.serialise(transaction, UserRow.__tablename__)
            yield transaction

    async def find(self, transaction: AsyncSession, username: str) -> User | None:
        """The user of that name, or None."""
        query = select(UserRow).where(UserRow.username == username, UserRow.deleted_at.is_(None))
        row = await transaction.scalar(query)
        return None if row is None else _user(row)

    async def anyone(self, transaction: AsyncSession) -> bool:
        """Whether anybody has ever registered."""
        return bool(await transaction.scalar(select(exists(select(UserRow.id)))))

    async def none(self) -> bool:
        """Whether nobody has registered yet."""
        async with self._database.read() as transaction:
            return not await self.anyone(transaction)

    async def is_taken(self, username: str) -> bool:
        """Whether somebody has the name, or had it."""
        async with self._database.read() as transaction:
            return bool(
                await transaction.scalar(select(exists(select(UserRow.id).where(UserRow.username == username))))
            )

    async def administrators(self, transaction: AsyncSession) -> int:
        """How many administrators may act as such."""
        rules = (UserRow.role == ADMIN, UserRow.disabled_at.is_(None), UserRow.deleted_at.is_(None))
        return await transaction.scalar(select(func.count()).select_from(UserRow).where(*rules)) or 0

    async def check_administers(self, transaction: AsyncSession, username: str) -> None:
        """Raises NoAdministrator where somebody may not, or may no longer, act as an administrator.

        The call was let in by what its token says. Asked in a transaction of `changing`, this is still so at its end.
        """
        user = await self.find(transaction, username)
        if user is None or not user.administers:
            raise NoAdministrator("Only an administrator may do this.", hint="Ask one.")

    async def add(self, transaction: AsyncSession, username: str, *, password_hash: str, role: str, now: int) -> None:
        """Registers a user. Raises UsernameTaken, after which the transaction is of no use."""
        row = {"username": username, "password_hash": password_hash, "role": role, "created_at": now}
        try:
            await transaction.execute(insert(UserRow).values(row))
        except IntegrityError as error:
            raise taken(username) from error

    async def set_password(self, transaction: AsyncSession, user: User, password_hash: str) -> None:
        """Gives a user another password."""
        await self._set(transaction, user, password_hash=password_hash)

    async def set_rights(self, transaction: AsyncSession, user: User, *, role: str, disabled_at: int | None) -> None:
        """Gives a user another role, disables or enables the user."""
        await self._set(transaction, user, role=role, disabled_at=disabled_at)

    async def delete(self, transaction: AsyncSession, user: User, *, now: int) -> None:
        """Leaves nothing of a user but the name."""
        await self._set(transaction, user, password_hash=NOBODYS, deleted_at=now)

    async def _set(self, transaction: AsyncSession, user: User, **values: object) -> None:
        await transaction.execute(update(UserRow).where(UserRow.id == user.id).values(values))


def taken(username: str) -> UsernameTaken:
    """That nobody else can have the name."""
    return UsernameTaken(f"The username {username!r} is taken.", hint="Choose another, or log in.", username=username)


async def still_so(transaction: AsyncSession, user: User) -> bool:
    """Whether password, role and state of a user are still these; they stay so until the transaction ends.

    Whoever begins something for a user whose password was checked before the transaction asks this in it: the password
    may have been changed, or the user deleted, between.
    """
    same = (
        UserRow.id == user.id,
        UserRow.password_hash == user.password_hash,
        UserRow.role == user.role,
        UserRow.disabled_at.is_(None) if user.disabled_at is None else UserRow.disabled_at == user.disabled_at,
        UserRow.deleted_at.is_(None),
    )
    return await transaction.scalar(select(UserRow.id).where(*same).with_for_update(key_share=True)) is not None


def _user(row: UserRow) -> User:
    return User(
        id=row.id,
        username=row.username,
        password_hash=row.password_hash,
        role=row.role,
        created_at=row.created_at,
        login_at=row.login_at,
        disabled_at=row.disabled_at,
    )
