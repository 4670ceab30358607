"""Sessions in the database. What takes a `transaction` is a part of the caller's; the rest has one of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, or_, select, update

from uhm_auth.audit import append
from uhm_auth.errors import WrongCredentials
from uhm_auth.models import SessionRow, UserRow
from uhm_auth.stores.revocations import add_revocations
from uhm_auth.stores.users import still_so
from uhm_common.callers.revocations import Revocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, CursorResult, Row, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.audit import Entry
    from uhm_auth.stores.users import User
    from uhm_common.database import Database

__all__ = ["Session", "SessionStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login and what has become of it. Times are in seconds since the epoch.

    `token_id` is the `jti` of the refresh token that is good, `token_issued_at` its `iat`, and `expires_at` its `exp`.
    Where the session rotates, `replaced_id` is the one before, which was replaced at `replaced_at`.
    """

    id: str
    username: str
    role: str
    rotates: bool
    token_id: str = field(repr=False)
    token_issued_at: int
    created_at: int
    used_at: int
    expires_at: int
    replaced_id: str | None = field(default=None, repr=False)
    replaced_at: int | None = None
    revoked_at: int | None = None
    address: str = ""
    user_agent: str = ""

    def ended(self, *, now: int) -> bool:
        """Whether it was revoked or has expired."""
        return self.revoked_at is not None or self.expires_at <= now


class SessionStore:
    """The only place that knows the table."""

    def __init__(self, database: Database, *, told_seconds: int, most: int) -> None:
        """A user has `most` sessions at a time.

        Services are told of a revocation for `told_seconds`: at least as long as access tokens are good.
        """
        self._database = database
        self._told_seconds = told_seconds
        self._most = most

    async def add(self, session: Session, *, user: User, entry: Entry, told: Callable[[int], Entry]) -> int:
        """Notes a login; answers how many of the user's sessions ended to make room, of which a log entry is made.

        Raises WrongCredentials where the user is not any more what was checked.
        """
        async with self._database.write() as transaction:
            await self.begin(transaction, session, user=user)
            await append(transaction, entry)
            count = await self._make_room(transaction, session, user=user)
            if count:
                await append(transaction, told(count))
        return count

    async def begin(self, transaction: AsyncSession, session: Session, *, user: User) -> None:
        """Notes a login, in the caller's transaction. Raises WrongCredentials like `add`."""
        if not await still_so(transaction, user):
            raise WrongCredentials("The password was changed, or the user is gone.", hint="Log in again.")
        row = {
            "id": session.id,
            "user_id": user.id,
            "rotates": session.rotates,
            "token_id": session.token_id,
            "token_issued_at": session.token_issued_at,
            "created_at": session.created_at,
            "used_at": session.used_at,
            "expires_at": session.expires_at,
            "address": session.address,
            "user_agent": session.user_agent,
        }
        await transaction.execute(insert(SessionRow).values(row))
        await transaction.execute(update(UserRow).where(UserRow.id == user.id).values(login_at=session.created_at))

    async def session(self, session_id: str) -> Session | None:
        """The session of that id, or None."""
        async with self._database.read() as transaction:
            found = (await transaction.execute(_sessions(SessionRow.id == session_id))).one_or_none()
        return None if found is None else _session(found)

    async def page(self, username: str, *, after: tuple[int, str] | None, limit: int, now: int) -> list[Session]:
        """A user's sessions that have not ended, the newest first; `after` is creation time and id of the last seen."""
        query = _sessions(UserRow.username == username, SessionRow.revoked_at.is_(None), SessionRow.expires_at > now)
        if after is not None:
            created_at, session_id = after
            query = query.where(
                (SessionRow.created_at < created_at)
                | ((SessionRow.created_at == created_at) & (SessionRow.id < session_id))
            )
        query = query.order_by(SessionRow.created_at.desc(), SessionRow.id.desc()).limit(limit)
        async with self._database.read() as transaction:
            return [_session(found) for found in await transaction.execute(query)]

    async def replace_token(self, session: Session, *, token_id: str, now: int, expires_at: int) -> bool:
        """Makes another refresh token the good one; answers False, changing nothing, where the session's is not."""
        values = {
            "replaced_id": session.token_id,
            "replaced_at": now,
            "token_id": token_id,
            "token_issued_at": now,
            "used_at": now,
            "expires_at": expires_at,
            "rotates": True,
        }
        return await self._change(session.id, SessionRow.token_id == session.token_id, **values)

    async def use(self, session_id: str, *, now: int) -> bool:
        """Notes that a session goes on; answers False where it has been revoked."""
        return await self._change(session_id, used_at=now)

    async def revoke(self, session_id: str, *, username: str, now: int, entry: Entry) -> bool:
        """Ends a session of that user; answers False where there is none that goes on."""
        matching = (SessionRow.id == session_id, UserRow.username == username)
        async with self._database.write() as transaction:
            if not await self._revoke(transaction, *matching, now=now):
                return False
            await append(transaction, entry)
            return True

    async def revoke_everywhere(self, username: str, *, now: int, told: Callable[[int], Entry]) -> None:
        """Ends all sessions of a user; the log entry is made of how many that were."""
        async with self._database.write() as transaction:
            count = await self._revoke(transaction, UserRow.username == username, now=now)
            await append(transaction, told(count))

    async def revoke_all(self, transaction: AsyncSession, user_id: int, *, now: int) -> int:
        """Ends all sessions of a user in the caller's transaction; answers how many."""
        return await self._revoke(transaction, SessionRow.user_id == user_id, now=now)

    async def delete_expired(self, *, now: int) -> int:
        """Forgets sessions of which no token could be good or need be refused any more; answers how many."""
        gone_by = or_(SessionRow.expires_at <= now, SessionRow.revoked_at <= now - self._told_seconds)
        async with self._database.write() as transaction:
            gone = await transaction.execute(delete(SessionRow).where(gone_by))
            return cast("CursorResult[Any]", gone).rowcount

    async def _change(self, session_id: str, *matching: ColumnElement[bool], **values: object) -> bool:
        """Changes a session that was not revoked and matches; answers whether there was one."""
        change = update(SessionRow).where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None), *matching)
        async with self._database.write() as transaction:
            changed = await transaction.execute(change.values(values))
            return cast("CursorResult[Any]", changed).rowcount == 1

    async def _make_room(self, transaction: AsyncSession, session: Session, *, user: User) -> int:
        """Ends those of a user's other sessions that were used longest ago and are too many; answers how many.

        `begin` has locked the user: of two logins at once, the second sees the first one's session.
        """
        now = session.created_at
        others = (SessionRow.user_id == user.id, SessionRow.id != session.id)
        going_on = (SessionRow.revoked_at.is_(None), SessionRow.expires_at > now)
        used_last = (SessionRow.used_at.desc(), SessionRow.created_at.desc(), SessionRow.id)
        too_many = select(SessionRow.id).where(*others, *going_on).order_by(*used_last).offset(self._most - 1)
        return await self._revoke(transaction, SessionRow.id.in_(too_many), now=now)

    async def _revoke(self, transaction: AsyncSession, *matching: ColumnElement[bool], now: int) -> int:
        """Ends matching sessions that go on, and has every service told; answers how many."""
        going_on = (SessionRow.revoked_at.is_(None), SessionRow.expires_at > now)
        query = select(SessionRow.id).join(UserRow).where(*matching, *going_on).with_for_update(of=SessionRow)
        ids = list(await transaction.scalars(query))
        if ids:
            await transaction.execute(update(SessionRow).where(SessionRow.id.in_(ids)).values(revoked_at=now))
            told = [Revocation(id=each, expires_at=now + self._told_seconds) for each in ids]
            await add_revocations(transaction, told, now=now)
        return len(ids)


def _sessions(*matching: ColumnElement[bool]) -> Select[SessionRow, str, str]:
    return select(SessionRow, UserRow.username, UserRow.role).join(UserRow).where(*matching)


def _session(found: Row[SessionRow, str, str]) -> Session:
    row, username, role = found
    return Session(
        id=row.id,
        username=username,
        role=role,
        rotates=row.rotates,
        token_id=row.token_id,
        token_issued_at=row.token_issued_at,
        created_at=row.created_at,
        used_at=row.used_at,
        expires_at=row.expires_at,
        replaced_id=row.replaced_id,
        replaced_at=row.replaced_at,
        revoked_at=row.revoked_at,
        address=row.address,
        user_agent=row.user_agent,
    )
