"""Accounts: who there is, what they may do, and how they go.

What changes a user's rights ends what was begun with them, in the same transaction: see `uhm_auth.grants`. One
administrator who is enabled is always left. A deleted user's name stays taken; that the user is gone is told to the
other services by an event, which leaves after the commit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uhm_auth.audit import Event, append, entry
from uhm_auth.credentials import is_username
from uhm_auth.errors import LastAdministrator, UserNotFound
from uhm_auth.invitations import check_role
from uhm_common.events import USERS_DELETED
from uhm_common.paging import Listing, page_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.credentials import Credentials
    from uhm_auth.grants import Grants
    from uhm_auth.stores.users import User, UserStore
    from uhm_common.outbox import Outbox
    from uhm_common.paging import PageTokens

__all__ = ["Accounts", "Change", "UserPage"]

LISTING = Listing(name="users")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be different of a user; None: nothing."""

    role: str | None = None
    disabled: bool | None = None

    def of(self, user: User, *, now: int) -> User:
        """The user afterwards."""
        role = user.role if self.role is None else self.role
        disabled = user.disabled if self.disabled is None else self.disabled
        return replace(user, role=role, disabled_at=(user.disabled_at or now) if disabled else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    """A part of the list; `next_token` is empty at its end."""

    users: Sequence[User]
    next_token: str


class Accounts:
    """Tells of users, changes and deletes them."""

    def __init__(
        self,
        users: UserStore,
        grants: Grants,
        *,
        credentials: Credentials,
        outbox: Outbox,
        page_tokens: PageTokens,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._grants = grants
        self._credentials = credentials
        self._outbox = outbox
        self._page_tokens = page_tokens
        self._clock = clock

    async def get(self, username: str) -> User:
        """One user. Raises UserNotFound."""
        user = await self._users.user(username) if is_username(username) else None
        if user is None:
            raise _not_found(username)
        return user

    async def page(self, *, size: int, token: str) -> UserPage:
        """Users by name. Raises InvalidArgument or InvalidPageToken."""
        limit = page_size(size)
        found = await self._users.page(after=self._page_tokens.read(token, of=LISTING), limit=limit + 1)
        shown, more = self._page_tokens.cut(found, size=limit, of=LISTING, position=lambda user: user.username)
        return UserPage(users=shown, next_token=more)

    async def update(self, username: str, change: Change, *, actor: str) -> User:
        """Changes a user, and answers how the user is then.

        Raises NoAdministrator, UserNotFound, InvalidRole or LastAdministrator.
        """
        if change.role is not None:
            check_role(change.role)
        now = int(self._clock())
        async with self._users.changing() as transaction:
            await self._users.check_administers(transaction, actor)
            before = await self._find(transaction, username)
            after = change.of(before, now=now)
            if after == before:
                return before
            await self._keep_an_administrator(transaction, before, after)
            await self._users.set_rights(transaction, before, role=after.role, disabled_at=after.disabled_at)
            await self._grants.end(transaction, before, after, now=now)
            told = entry(Event.USER_UPDATED, username=username, actor=actor, role=after.role, disabled=after.disabled)
            await append(transaction, told)
        await self._grants.announce()
        return after

    async def delete(self, username: str, *, actor: str) -> None:
        """Deletes a user. Raises NoAdministrator, UserNotFound or LastAdministrator."""
        async with self._users.changing() as transaction:
            await self._users.check_administers(transaction, actor)
            await self._delete(transaction, username, actor=actor)
        await self._announce_deletion()

    async def delete_caller(self, username: str, password: str) -> None:
        """Deletes whoever calls. Raises TooManyAttempts, WrongPassword or LastAdministrator."""
        await self._credentials.confirm(username, password)
        async with self._users.changing() as transaction:
            await self._delete(transaction, username, actor=username)
        await self._announce_deletion()

    async def _delete(self, transaction: AsyncSession, username: str, *, actor: str) -> None:
        now = int(self._clock())
        user = await self._find(transaction, username)
        await self._keep_an_administrator(transaction, user, None)
        await self._users.delete(transaction, user, now=now)
        await self._grants.end(transaction, user, None, now=now)
        await self._outbox.add(transaction, USERS_DELETED, {"username": user.username, "deleted_at": now})
        await append(transaction, entry(Event.USER_DELETED, username=username, actor=actor))

    async def _announce_deletion(self) -> None:
        """Has the other services told of what was committed, and this process know it."""
        self._outbox.wake()
        await self._grants.announce()

    async def _find(self, transaction: AsyncSession, username: str) -> User:
        user = await self._users.find(transaction, username) if is_username(username) else None
        if user is None:
            raise _not_found(username)
        return user

    async def _keep_an_administrator(self, transaction: AsyncSession, before: User, after: User | None) -> None:
        """Raises LastAdministrator where nobody would be left to administer."""
        stays = after is not None and after.administers
        if before.administers and not stays and await self._users.administrators(transaction) == 1:
            raise LastAdministrator(
                f"{before.username!r} is the last administrator.", hint="Make another user one first."
            )


def _not_found(username: str) -> UserNotFound:
    return UserNotFound(f"There is no user {username[:80]!r}.")
