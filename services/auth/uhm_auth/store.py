"""Users and sessions in the database: one short transaction per method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from uhm_auth.errors import UsernameTaken
from uhm_auth.models import SessionRow, UserRow

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Delete, Update

    from uhm_common.database import Database

__all__ = ["AuthStore", "Session", "User"]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who registered."""

    id: int
    username: str
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login and what has become of it. `token_hash` says which refresh token is good, where the session rotates."""

    id: str
    username: str
    rotates: bool
    token_hash: str = field(repr=False)
    expires_at: int
    revoked_at: int | None = None

    def ended(self, *, now: int) -> bool:
        """Whether it was revoked or has expired."""
        return self.revoked_at is not None or self.expires_at <= now


class AuthStore:
    """The only place that knows the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_user(self, username: str, password_hash: str, *, now: int) -> None:
        """Registers a user. Raises UsernameTaken; of two who register one name at once, the database picks one."""
        row = {"username": username, "password_hash": password_hash, "created_at": now}
        try:
            async with self._database.write() as session:
                await session.execute(insert(UserRow).values(row))
        except IntegrityError as error:
            raise UsernameTaken(
                f"The username {username!r} is taken.", hint="Choose another, or log in.", username=username
            ) from error

    async def user(self, username: str) -> User | None:
        """The user of that name, or None."""
        async with self._database.read() as session:
            row = await session.scalar(select(UserRow).where(UserRow.username == username))
        if row is None:
            return None
        return User(id=row.id, username=row.username, password_hash=row.password_hash)

    async def set_password_hash(self, user_id: int, password_hash: str) -> None:
        """Replaces the stored form of a user's password."""
        await self._change(update(UserRow).where(UserRow.id == user_id).values(password_hash=password_hash))

    async def add_session(self, session: Session, *, user_id: int, now: int) -> None:
        """Notes a login."""
        row = {
            "id": session.id,
            "user_id": user_id,
            "rotates": session.rotates,
            "token_hash": session.token_hash,
            "created_at": now,
            "expires_at": session.expires_at,
        }
        async with self._database.write() as transaction:
            await transaction.execute(insert(SessionRow).values(row))

    async def session(self, session_id: str) -> Session | None:
        """The session of that id, or None."""
        query = select(SessionRow, UserRow.username).join(UserRow).where(SessionRow.id == session_id)
        async with self._database.read() as transaction:
            found = (await transaction.execute(query)).one_or_none()
        if found is None:
            return None
        row, username = found
        return Session(
            id=row.id,
            username=username,
            rotates=row.rotates,
            token_hash=row.token_hash,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )

    async def replace_token(self, session_id: str, *, old_hash: str, new_hash: str, expires_at: int) -> bool:
        """Makes another refresh token the good one; answers False, changing nothing, where the old one was not."""
        matches = (
            SessionRow.id == session_id,
            SessionRow.token_hash == old_hash,
            SessionRow.revoked_at.is_(None),
        )
        change = update(SessionRow).where(*matches).values(token_hash=new_hash, expires_at=expires_at)
        return await self._change(change) == 1

    async def revoke_session(self, session_id: str, *, now: int) -> None:
        """Ends a session for good; one that is revoked keeps its time, one that does not exist has ended already."""
        matches = (SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
        await self._change(update(SessionRow).where(*matches).values(revoked_at=now))

    async def delete_expired_sessions(self, *, now: int) -> int:
        """Forgets sessions whose tokens have all expired; answers how many."""
        return await self._change(delete(SessionRow).where(SessionRow.expires_at <= now))

    async def _change(self, statement: Update | Delete) -> int:
        """Runs a statement in its own transaction; answers how many rows it touched."""
        async with self._database.write() as session:
            return cast("CursorResult[Any]", await session.execute(statement)).rowcount
