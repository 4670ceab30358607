"""Images in the database: one short transaction per method. The only place that knows the table.

A worker holds a build by its attempt number: every write of a build is conditional on it (a fencing token), so a worker
that was taken for lost and comes back can write nothing. `lease_until` says how long nobody else may take the build up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, select, update

from uhm_builder.customization import Customization, customization_of, customization_record
from uhm_builder.errors import BuildLost
from uhm_builder.images import Archive, BuildContext, Image, Layer, Stage, Status, build_context, image_config
from uhm_builder.models import AliasRow, ImageRow
from uhm_builder.sources.reference import repository

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, CursorResult, Row
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database

__all__ = ["Claim", "Holdings", "ImageStore", "InUse", "NewImage"]

NAMED_MAX = 1000
"""As many ids as one query names."""
IN_USE = (ImageRow.id, ImageRow.status, ImageRow.layers, ImageRow.disk_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image that was asked for."""

    id: str
    owner: str
    reference: str
    created_at: int
    source: BuildContext | Archive | Customization | None = None
    platform: str = ""
    publish: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to write a build: valid until somebody claims it again, or it ends."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """What images are made of that are ready or being built: diffIDs and disk digests; and which ones are ready."""

    ready: frozenset[str]
    layers: frozenset[str]
    disks: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What somebody has: how many images are ready and being built, and the layers of the ready ones, with sizes."""

    images: int
    building: int
    layers: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of all layers, each counted once."""
        return sum(self.layers.values())


class ImageStore:
    """Rows of builder_images as `Image` values."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, session: AsyncSession, new: NewImage) -> None:
        """Adds an image to the session's transaction."""
        row = {
            "id": new.id,
            "owner": new.owner,
            "reference": new.reference,
            "context": asdict(new.source) if isinstance(new.source, BuildContext) else None,
            "archive": asdict(new.source) if isinstance(new.source, Archive) else None,
            "customization": customization_record(new.source) if isinstance(new.source, Customization) else None,
            "platform": new.platform,
            "publish": list(new.publish),
            "status": Status.BUILDING,
            "created_at": new.created_at,
        }
        await session.execute(insert(ImageRow).values(row))

    async def get(self, image_id: str, *, owner: str | None = None) -> Image | None:
        """The image of that id, or of that former id; with `owner`, only if it is theirs."""
        found = await self._find(ImageRow.id == image_id, owner=owner, limit=1)
        if not found:
            former = select(AliasRow.image_id).where(AliasRow.id == image_id).scalar_subquery()
            found = await self._find(ImageRow.id == former, owner=owner, limit=1)
        return found[0] if found else None

    async def by_prefix(self, prefix: str, *, owner: str) -> list[Image]:
        """Up to two images whose ids, or former ids, begin like that."""
        former = select(AliasRow.image_id).where(AliasRow.id.startswith(prefix, autoescape=True))
        begins = ImageRow.id.startswith(prefix, autoescape=True) | ImageRow.id.in_(former)
        return await self._find(begins, owner=owner, limit=2)

    async def by_reference(self, reference: str, *, owner: str) -> list[Image]:
        """The images of a reference, the newest first."""
        return await self._find(ImageRow.reference == reference, owner=owner)

    async def page(self, *, owner: str, before: int | None, limit: int, references: Sequence[str] = ()) -> list[Image]:
        """Images numbered below `before`, the newest first. A reference that ends with `:` or `@` has any tag."""
        conditions: list[ColumnElement[bool]] = []
        if before is not None:
            conditions.append(ImageRow.number < before)
        if references:
            alternatives = [
                ImageRow.reference.startswith(reference, autoescape=True)
                if reference.endswith((":", "@"))
                else ImageRow.reference == reference
                for reference in references
            ]
            conditions.append(alternatives[0] if len(alternatives) == 1 else alternatives[0] | alternatives[1])
        return await self._find(*conditions, owner=owner, limit=limit)

    async def made(self, *, owner: str, before: int) -> list[Image]:
        """All that an owner asked for before that time, the newest first."""
        return await self._find(ImageRow.created_at < before, owner=owner)

    async def building(self, *, lease_before: int | None = None, owner: str | None = None) -> list[Image]:
        """Images that are being built, of all or one owner; with `lease_before`, those that nobody held since then."""
        conditions: list[ColumnElement[bool]] = [ImageRow.status == Status.BUILDING]
        if lease_before is not None:
            conditions += [ImageRow.lease_until < lease_before, ImageRow.created_at < lease_before]
        return await self._find(*conditions, owner=owner)

    async def claim(self, image_id: str, *, now: int, lease_until: int) -> Claim | None:
        """Takes a build up; None where it has ended, or somebody's lease still runs."""
        matches = (ImageRow.id == image_id, ImageRow.status == Status.BUILDING, ImageRow.lease_until < now)
        change = (
            update(ImageRow)
            .where(*matches)
            .values(attempt=ImageRow.attempt + 1, lease_until=lease_until, stages=[])
            .returning(ImageRow.attempt)
        )
        async with self._database.write() as session:
            attempt = (await session.execute(change)).scalar_one_or_none()
        return None if attempt is None else Claim(id=image_id, attempt=attempt)

    async def renew(self, claim: Claim, *, lease_until: int) -> None:
        """Holds the build on. Raises BuildLost."""
        async with self._database.write() as session:
            await _write(session, claim, {"lease_until": lease_until})

    async def record(
        self,
        claim: Claim,
        *,
        layers: Sequence[Layer] | None = None,
        stages: Sequence[Stage] | None = None,
        disk_digest: str | None = None,
    ) -> None:
        """Notes how far the build has come. Raises BuildLost."""
        values: dict[str, Any] = {}
        if layers is not None:
            values["layers"] = [asdict(layer) for layer in layers]
        if stages is not None:
            values["stages"] = [asdict(stage) for stage in stages]
        if disk_digest is not None:
            values["disk_digest"] = disk_digest
        async with self._database.write() as session:
            await _write(session, claim, values)

    async def finish(self, session: AsyncSession, claim: Claim, values: dict[str, Any]) -> None:
        """Ends the build in the session's transaction. Raises BuildLost."""
        await _write(session, claim, values)

    async def take_over(
        self, session: AsyncSession, *, owner: str, image_id: str, reference: str, disk: str, now: int
    ) -> list[Image]:
        """Gives a ready image its reference, in the session's transaction; answers the images that went for it.

        These are former holders with the same disk, and their ids name this image from now on; others keep their id and
        are named by digest, `name@sha256:…`.
        """
        others = (
            ImageRow.owner == owner,
            ImageRow.status == Status.READY,
            ImageRow.id != image_id,
            ImageRow.reference == reference,
        )
        same = select(ImageRow).where(*others, ImageRow.disk_digest == disk).order_by(ImageRow.number)
        replaced = [_image(row) for row in (await session.scalars(same)).all()]
        for former in replaced:
            await session.execute(update(AliasRow).where(AliasRow.image_id == former.id).values(image_id=image_id))
            await session.execute(delete(ImageRow).where(ImageRow.id == former.id))
            await session.execute(insert(AliasRow).values(id=former.id, image_id=image_id, created_at=now))
        if "@" not in reference:
            name = reference.rpartition(":")[0]
            untagged = {"reference": f"{name}@" + ImageRow.digest, "untagged_at": now}
            await session.execute(update(ImageRow).where(*others).values(untagged))
        return replaced

    async def cancel(self, image_id: str, *, owner: str, now: int) -> bool:
        """Ends a build as cancelled; False where it had ended."""
        matches = (ImageRow.id == image_id, ImageRow.owner == owner, ImageRow.status == Status.BUILDING)
        change = update(ImageRow).where(*matches).values(status=Status.CANCELLED, ended_at=now)
        async with self._database.write() as session:
            return cast("CursorResult[Any]", await session.execute(change)).rowcount == 1

    async def delete(self, session: AsyncSession, image_id: str) -> Image | None:
        """Deletes an image that has ended, in the session's transaction; answers what was deleted, if it was there."""
        ended = (ImageRow.id == image_id, ImageRow.status != Status.BUILDING)
        row = (await session.scalars(delete(ImageRow).where(*ended).returning(ImageRow))).one_or_none()
        return None if row is None else _image(row)

    async def disk_users(self, disk_digest: str) -> list[str]:
        """Ids of images that are, or are about to be, made of a disk."""
        query = select(ImageRow.id).where(
            ImageRow.disk_digest == disk_digest, ImageRow.status.in_([Status.READY, Status.BUILDING])
        )
        async with self._database.read() as session:
            return list((await session.scalars(query)).all())

    async def in_use(self, *, without: Collection[str] = ()) -> InUse:
        """What images are, or may soon be, made of; those with the ids `without` do not count."""
        query = select(*IN_USE).where(ImageRow.status.in_([Status.READY, Status.BUILDING]))
        async with self._database.read() as session:
            return _in_use([row for row in (await session.execute(query)).all() if row.id not in without])

    async def in_use_since(self, before: InUse) -> InUse:
        """What images are made of that were not ready yet in `before`; a ready one is always made of the same."""
        building = select(*IN_USE).where(ImageRow.status == Status.BUILDING)
        ready = select(ImageRow.id).where(ImageRow.status == Status.READY)
        async with self._database.read() as session:
            rows = list((await session.execute(building)).all())  # first: what is ready by now is found next
            new = [image_id for image_id in await session.scalars(ready) if image_id not in before.ready]
            for at in range(0, len(new), NAMED_MAX):
                query = select(*IN_USE).where(ImageRow.id.in_(new[at : at + NAMED_MAX]))
                rows += (await session.execute(query)).all()
        return _in_use(rows)

    async def holdings(self, session: AsyncSession, owner: str) -> Holdings:
        """What an owner has, as the session's transaction sees it."""
        query = select(ImageRow.status, ImageRow.layers).where(
            ImageRow.owner == owner, ImageRow.status.in_([Status.READY, Status.BUILDING])
        )
        rows = (await session.execute(query)).all()
        ready = [row for row in rows if row.status == Status.READY]
        layers = {layer["diff_id"]: layer["size"] for row in ready for layer in row.layers}
        return Holdings(images=len(ready), building=len(rows) - len(ready), layers=layers)

    async def layers_of_others(self, owner: str) -> set[str]:
        """DiffIDs of ready images that are not this owner's."""
        query = select(ImageRow.layers).where(ImageRow.owner != owner, ImageRow.status == Status.READY)
        async with self._database.read() as session:
            return {layer["diff_id"] for layers in await session.scalars(query) for layer in layers}

    async def untagged(self, *, before: int, owner: str | None = None) -> list[Image]:
        """Ready images that lost their tag to a newer one before that time."""
        return await self._find(ImageRow.status == Status.READY, ImageRow.untagged_at < before, owner=owner)

    async def surplus(self, *, keep: int) -> list[Image]:
        """Ready images beyond the `keep` newest of each owner and repository name; not more than a thousand."""
        query = select(ImageRow.id, ImageRow.owner, ImageRow.reference).where(ImageRow.status == Status.READY)
        async with self._database.read() as session:
            rows = (await session.execute(query.order_by(ImageRow.number.desc()))).all()
        seen: Counter[tuple[str, str]] = Counter()
        beyond = []
        for row in rows:
            name = (row.owner, repository(row.reference))
            seen[name] += 1
            if seen[name] > keep:
                beyond.append(row.id)
        return await self._find(ImageRow.id.in_(beyond[:NAMED_MAX])) if beyond else []

    async def forget(self, *, ended_before: int, aliases_before: int) -> None:
        """Deletes what failed or was cancelled long ago, and former ids of long ago."""
        over = ImageRow.status.in_([Status.FAILED, Status.CANCELLED])
        async with self._database.write() as session:
            await session.execute(delete(ImageRow).where(over, ImageRow.ended_at < ended_before))
            await session.execute(delete(AliasRow).where(AliasRow.created_at < aliases_before))

    async def _find(
        self, *conditions: ColumnElement[bool], owner: str | None = None, limit: int | None = None
    ) -> list[Image]:
        query = select(ImageRow).where(*conditions).order_by(ImageRow.number.desc()).limit(limit)
        if owner is not None:
            query = query.where(ImageRow.owner == owner)
        async with self._database.read() as session:
            return [_image(row) for row in (await session.scalars(query)).all()]


def _in_use(rows: Sequence[Row[Any]]) -> InUse:
    return InUse(
        ready=frozenset(row.id for row in rows if row.status == Status.READY),
        layers=frozenset(layer["diff_id"] for row in rows for layer in row.layers),
        disks=frozenset(row.disk_digest for row in rows if row.disk_digest),
    )


async def _write(session: AsyncSession, claim: Claim, values: dict[str, Any]) -> None:
    matches = (ImageRow.id == claim.id, ImageRow.attempt == claim.attempt, ImageRow.status == Status.BUILDING)
    done = cast("CursorResult[Any]", await session.execute(update(ImageRow).where(*matches).values(values)))
    if done.rowcount != 1:
        raise BuildLost(f"Attempt {claim.attempt} of build {claim.id} is not the one that counts.", id=claim.id)


def _image(row: ImageRow) -> Image:
    return Image(
        number=row.number,
        id=row.id,
        owner=row.owner,
        reference=row.reference,
        status=Status(row.status),
        created_at=row.created_at,
        context=build_context(row.context) if row.context else None,
        archive=Archive(**row.archive) if row.archive else None,
        customization=customization_of(row.customization) if row.customization else None,
        platform=row.platform,
        publish=tuple(row.publish),
        reason=row.reason,
        attempt=row.attempt,
        lease_until=row.lease_until,
        ended_at=row.ended_at,
        digest=row.digest,
        disk_digest=row.disk_digest,
        layers=tuple(Layer(**layer) for layer in row.layers),
        stages=tuple(Stage(**stage) for stage in row.stages),
        config=image_config(row.config),
    )
