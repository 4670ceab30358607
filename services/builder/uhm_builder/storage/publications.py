"""Publications: wishes that an image be at a location, in the database; what the queue of builds is for builds.

A publication is held by its attempt number, as a build is (`uhm_builder.store`). One that failed for a reason that may
pass stays "publishing": its lease lasts until it is to be tried again.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import String, delete, insert, select, update
from sqlalchemy import cast as cast_column

from uhm_builder.errors import PublicationLost
from uhm_builder.models import PublicationRow
from uhm_builder.store import Claim
from uhm_common.events import PUBLICATIONS_REQUESTED

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, CursorResult
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database
    from uhm_common.outbox import Outbox

__all__ = ["LEASE_PREFIX", "NewPublication", "Publication", "PublicationStatus", "PublicationStore", "lease_holder"]


LEASE_PREFIX = "publication-"
UPLOADS, NO_UPLOADS = cast_column(PublicationRow.uploads, String), "{}"


class PublicationStatus(StrEnum):
    """Where a publication is."""

    PUBLISHING = "publishing"
    PUBLISHED = "published"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self is not PublicationStatus.PUBLISHING


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPublication:
    """A publication that was asked for."""

    owner: str
    image_id: str
    reference: str
    location: str
    format: str = "qcow2"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A publication as the database has it. Times are nanoseconds since the epoch."""

    number: int
    id: str
    owner: str
    image_id: str
    reference: str
    location: str
    disk_digest: str
    format: str
    status: PublicationStatus
    reason: str
    attempt: int
    lease_until: int
    done_bytes: int
    total_bytes: int
    uploads: dict[str, str]
    """Tokens of uploads that broke off, by the name of the object."""
    created_at: int
    ended_at: int | None


def lease_holder(publication_id: str) -> str:
    """The name under which a publication holds the disk of its image."""
    return f"{LEASE_PREFIX}{publication_id}"


class PublicationStore:
    """Rows of builder_publications as `Publication` values."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(self, session: AsyncSession, new: NewPublication, *, outbox: Outbox) -> None:
        """Adds a publication, and the event that has a worker take it up, to the session's transaction."""
        row = {
            "id": new.id,
            "owner": new.owner,
            "image_id": new.image_id,
            "reference": new.reference,
            "location": new.location,
            "format": new.format,
            "status": PublicationStatus.PUBLISHING,
            "created_at": time.time_ns(),
        }
        await session.execute(insert(PublicationRow).values(row))
        await outbox.add(session, PUBLICATIONS_REQUESTED, {"id": new.id}, message_id=new.id)

    async def get(self, publication_id: str, *, owner: str | None = None) -> Publication | None:
        """The publication of that id; with `owner`, only if it is theirs."""
        conditions = [PublicationRow.id == publication_id]
        if owner is not None:
            conditions.append(PublicationRow.owner == owner)
        found = await self._find(*conditions)
        return found[0] if found else None

    async def page(self, *, owner: str, before: int | None, limit: int) -> list[Publication]:
        """Publications numbered below `before`, the newest first."""
        conditions: list[ColumnElement[bool]] = [PublicationRow.owner == owner]
        if before is not None:
            conditions.append(PublicationRow.number < before)
        return await self._find(*conditions, limit=limit)

    async def publishing(self, *, lease_before: int | None = None, owner: str | None = None) -> list[Publication]:
        """Those that have not ended, of all or one owner; with `lease_before`, those no worker has held since then."""
        conditions: list[ColumnElement[bool]] = [PublicationRow.status == PublicationStatus.PUBLISHING]
        if lease_before is not None:
            conditions += [PublicationRow.lease_until < lease_before, PublicationRow.created_at < lease_before]
        if owner is not None:
            conditions.append(PublicationRow.owner == owner)
        return await self._find(*conditions)

    async def claim(self, task_id: str, *, now: int, lease_until: int) -> Claim | None:
        """Takes a publication up; None where it has ended, or somebody's lease still runs."""
        matches = (
            PublicationRow.id == task_id,
            PublicationRow.status == PublicationStatus.PUBLISHING,
            PublicationRow.lease_until < now,
        )
        change = (
            update(PublicationRow)
            .where(*matches)
            .values(attempt=PublicationRow.attempt + 1, lease_until=lease_until)
            .returning(PublicationRow.attempt)
        )
        async with self._database.write() as session:
            attempt = (await session.execute(change)).scalar_one_or_none()
        return None if attempt is None else Claim(id=task_id, attempt=attempt)

    async def renew(self, claim: Claim, *, lease_until: int) -> None:
        """Holds the publication on. Raises PublicationLost."""
        await self.record(claim, lease_until=lease_until)

    async def record(self, claim: Claim, **values: Any) -> None:
        """Writes columns. Raises PublicationLost."""
        matches = (
            PublicationRow.id == claim.id,
            PublicationRow.attempt == claim.attempt,
            PublicationRow.status == PublicationStatus.PUBLISHING,
        )
        async with self._database.write() as session:
            change = update(PublicationRow).where(*matches).values(values)
            done = cast("CursorResult[Any]", await session.execute(change))
        if done.rowcount != 1:
            raise PublicationLost(f"Attempt {claim.attempt} of publication {claim.id} is not the one that counts.")

    async def cancel(self, publication_id: str, *, owner: str) -> bool:
        """Ends a publication as cancelled; False where it had ended."""
        matches = (
            PublicationRow.id == publication_id,
            PublicationRow.owner == owner,
            PublicationRow.status == PublicationStatus.PUBLISHING,
        )
        change = update(PublicationRow).where(*matches)
        async with self._database.write() as session:
            values = {"status": PublicationStatus.CANCELLED, "ended_at": time.time_ns()}
            return cast("CursorResult[Any]", await session.execute(change.values(values))).rowcount == 1

    async def clear_uploads(self, publication_id: str) -> None:
        """Forgets what an ended publication had begun to upload."""
        async with self._database.write() as session:
            change = update(PublicationRow).where(PublicationRow.id == publication_id)
            await session.execute(change.values(uploads={}))

    async def untidy(self, *, owner: str | None = None) -> list[Publication]:
        """Ended publications, of all or one owner, that still have uploads which nobody will end."""
        conditions = [PublicationRow.status != PublicationStatus.PUBLISHING, UPLOADS != NO_UPLOADS]
        if owner is not None:
            conditions.append(PublicationRow.owner == owner)
        return await self._find(*conditions)

    async def forget(self, *, ended_before: int) -> None:
        """Deletes those that ended long ago."""
        async with self._database.write() as session:
            await session.execute(delete(PublicationRow).where(PublicationRow.ended_at < ended_before))

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Deletes an owner's that were asked for before that time and have ended; those that are untidy stay."""
        theirs = (PublicationRow.owner == owner, PublicationRow.created_at < before)
        tidy = (PublicationRow.status != PublicationStatus.PUBLISHING, UPLOADS == NO_UPLOADS)
        async with self._database.write() as session:
            await session.execute(delete(PublicationRow).where(*theirs, *tidy))

    async def _find(self, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Publication]:
        query = select(PublicationRow).where(*conditions).order_by(PublicationRow.number.desc()).limit(limit)
        async with self._database.read() as session:
            return [_publication(row) for row in (await session.scalars(query)).all()]


def _publication(row: PublicationRow) -> Publication:
    return Publication(
        number=row.number,
        id=row.id,
        owner=row.owner,
        image_id=row.image_id,
        reference=row.reference,
        location=row.location,
        disk_digest=row.disk_digest,
        format=row.format,
        status=PublicationStatus(row.status),
        reason=row.reason,
        attempt=row.attempt,
        lease_until=row.lease_until,
        done_bytes=row.done_bytes,
        total_bytes=row.total_bytes,
        uploads=dict(row.uploads),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
