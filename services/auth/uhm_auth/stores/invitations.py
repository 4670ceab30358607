"""Invitations in the database. What takes a `transaction` is a part of the caller's; the rest has one of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, select, tuple_

from uhm_auth.audit import append
from uhm_auth.models import InvitationRow

if TYPE_CHECKING:
    from sqlalchemy import CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.audit import Entry
    from uhm_common.database import Database

__all__ = ["Invitation", "InvitationStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Lets one user register with a role. Times are in seconds since the epoch."""

    id: str
    role: str
    creator: str
    created_at: int
    expires_at: int


class InvitationStore:
    """The only place that knows the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, transaction: AsyncSession, invitation: Invitation, *, code_hash: str) -> None:
        """Keeps an invitation."""
        row = {
            "id": invitation.id,
            "code_hash": code_hash,
            "role": invitation.role,
            "creator": invitation.creator,
            "created_at": invitation.created_at,
            "expires_at": invitation.expires_at,
        }
        await transaction.execute(insert(InvitationRow).values(row))

    async def page(self, *, before: tuple[int, str] | None, limit: int, now: int) -> list[Invitation]:
        """Those that are good, the newest first, from behind one that was made then and has that id on."""
        order = tuple_(InvitationRow.created_at, InvitationRow.id)
        query = select(InvitationRow).where(InvitationRow.expires_at > now)
        if before is not None:
            query = query.where(order < before)
        query = query.order_by(InvitationRow.created_at.desc(), InvitationRow.id.desc()).limit(limit)
        async with self._database.read() as transaction:
            return [_invitation(row) for row in await transaction.scalars(query)]

    async def delete(self, invitation_id: str, *, now: int, entry: Entry) -> bool:
        """Withdraws an invitation; answers False where there is none that is good."""
        good = (InvitationRow.id == invitation_id, InvitationRow.expires_at > now)
        async with self._database.write() as transaction:
            deleted = await transaction.execute(delete(InvitationRow).where(*good))
            if not cast("CursorResult[Any]", deleted).rowcount:
                return False
            await append(transaction, entry)
        return True

    async def with_code(self, code_hash: str, *, now: int) -> Invitation | None:
        """The invitation whose code that is, if it is good now."""
        query = select(InvitationRow).where(InvitationRow.code_hash == code_hash, InvitationRow.expires_at > now)
        async with self._database.read() as transaction:
            row = await transaction.scalar(query)
        return None if row is None else _invitation(row)

    async def use(self, transaction: AsyncSession, invitation: Invitation, *, now: int) -> bool:
        """Uses an invitation up; of many who do so at once, one is answered True."""
        good = (InvitationRow.id == invitation.id, InvitationRow.expires_at > now)
        used = await transaction.execute(delete(InvitationRow).where(*good))
        return bool(cast("CursorResult[Any]", used).rowcount)

    async def withdraw_all(self, transaction: AsyncSession, *, creator: str) -> None:
        """Withdraws what an administrator has made who is none any more."""
        await transaction.execute(delete(InvitationRow).where(InvitationRow.creator == creator))

    async def delete_expired(self, *, now: int) -> None:
        """Forgets those that nobody can use any more."""
        async with self._database.write() as transaction:
            await transaction.execute(delete(InvitationRow).where(InvitationRow.expires_at <= now))


def _invitation(row: InvitationRow) -> Invitation:
    return Invitation(
        id=row.id, role=row.role, creator=row.creator, created_at=row.created_at, expires_at=row.expires_at
    )
