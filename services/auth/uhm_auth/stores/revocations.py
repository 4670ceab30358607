"""Sessions and API keys that services must refuse, in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import case, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from uhm_auth.models import RevocationRow
from uhm_common.callers.revocations import Revocation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database

__all__ = ["RevocationStore", "add_revocations"]


async def add_revocations(transaction: AsyncSession, revocations: Iterable[Revocation], *, now: int) -> None:
    """Adds them in the transaction of what revokes; of one that is there already, the later expiry counts.

    After the commit, `RevocationFeed.refresh` has this process know at once what the others know within a second.
    """
    insert = postgresql.insert if transaction.get_bind().dialect.name == "postgresql" else sqlite.insert
    for revocation in revocations:
        row = {"id": revocation.id, "revoked_at": now, "expires_at": int(revocation.expires_at)}
        added = insert(RevocationRow).values(row)
        new, old = added.excluded.expires_at, RevocationRow.expires_at
        later = {"revoked_at": now, "expires_at": case((new > old, new), else_=old)}
        await transaction.execute(added.on_conflict_do_update(index_elements=[RevocationRow.id], set_=later))


class RevocationStore:
    """The only place that reads the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, moment: int, *, now: int) -> list[Revocation]:
        """Those that were revoked at that moment or later and have not expired."""
        query = select(RevocationRow).where(RevocationRow.revoked_at >= moment, RevocationRow.expires_at > now)
        async with self._database.read() as transaction:
            rows = await transaction.scalars(query)
            return [Revocation(id=row.id, expires_at=row.expires_at) for row in rows]

    async def delete_expired(self, *, now: int) -> int:
        """Forgets those of which no token could be good; answers how many."""
        async with self._database.write() as transaction:
            gone = await transaction.execute(delete(RevocationRow).where(RevocationRow.expires_at <= now))
            return cast("CursorResult[Any]", gone).rowcount
