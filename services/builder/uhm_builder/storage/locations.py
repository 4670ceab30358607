"""The storage locations of all users, and opening them. Secrets are in the database encrypted, and nowhere else.

A directory must be below one of those that the operator allows. `{user}` in one of these stands for the name of whoever
asks, so that by default nobody sees what others have published; several users share one that is set without it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from uhm_builder.errors import (
    ContentMismatch,
    InvalidStorage,
    NoSuchStorage,
    StorageExists,
    StorageRefused,
    StorageUnreachable,
)
from uhm_builder.models import LocationRow
from uhm_builder.storage.beneath import Beneath
from uhm_builder.storage.content import Content
from uhm_builder.storage.directory import DirectoryStore, delete_files
from uhm_builder.storage.layouts import ObjectLayout, RegistryLayout
from uhm_builder.storage.objects import Resume, read_document
from uhm_builder.storage.places import (
    DirectoryPlace,
    Place,
    RegistryPlace,
    S3Place,
    WebDavPlace,
    checked,
    place_of,
    record_of,
)
from uhm_builder.storage.registry import RegistryStore
from uhm_builder.storage.webdav import WebDavStore
from uhm_builder.threads import in_thread
from uhm_common.errors import UhmError
from uhm_common.idempotency import current_claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sqlalchemy import ColumnElement

    from uhm_builder.hosts import HostRules
    from uhm_builder.storage.layouts import Layout
    from uhm_builder.storage.objects import ObjectStore
    from uhm_common.database import Database
    from uhm_common.vault import Vault

__all__ = ["LOCATION_NAME", "Location", "Locations", "Opened", "answer_soon", "try_out"]

LOCATION_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
USER = "{user}"
PROBE_BYTES = 32
ANSWER_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A storage location; its place has no secret."""

    number: int
    owner: str
    name: str
    place: Place
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A location that can be used."""

    store: ObjectStore
    layout: Layout


class Locations:
    """Storage locations; each method acts for one owner, and what others have does not exist for it."""

    def __init__(self, *, database: Database, vault: Vault, directories: Sequence[str], rules: HostRules) -> None:
        """`rules` say which hosts may be connected to."""
        self._database = database
        self._vault = vault
        self._directories = directories
        self._rules = rules

    async def add(self, name: str, place: Place, *, owner: str) -> Location:
        """Adds a location that was tried. Raises InvalidStorage, StorageExists, and what `try_out` raises."""
        if not LOCATION_NAME.fullmatch(name):
            raise InvalidStorage(
                f"{name[:80]!r} is not a name for a storage location.",
                hint="It has up to 63 lower-case letters, digits and dashes.",
            )
        claim = current_claim()
        if claim.resource:
            return await self.get(name, owner=owner)
        place = self._located(checked(place), owner=owner)
        if await self._find(LocationRow.owner == owner, LocationRow.name == name):
            raise _exists(name)
        async with self._opened(place, owner=owner) as opened, answer_soon():
            await try_out(opened)
        secret = "" if isinstance(place, DirectoryPlace) else place.secret
        row = {
            "owner": owner,
            "name": name,
            "place": record_of(place),
            "secret": self._vault.seal(secret.encode(), purpose=_purpose(owner, name)),
            "created_at": time.time_ns(),
        }
        try:
            async with self._database.write() as session:
                await session.execute(insert(LocationRow).values(row))
                await claim.made(session, name)
        except IntegrityError as error:
            raise _exists(name) from error
        return await self.get(name, owner=owner)

    async def get(self, name: str, *, owner: str) -> Location:
        """One location. Raises NoSuchStorage."""
        return _location(await self._row(name, owner=owner))

    async def page(self, *, owner: str, before: int | None, limit: int) -> list[Location]:
        """Locations numbered below `before`, the newest first."""
        conditions: list[ColumnElement[bool]] = [LocationRow.owner == owner]
        if before is not None:
            conditions.append(LocationRow.number < before)
        return [_location(row) for row in await self._find(*conditions, limit=limit)]

    async def delete(self, name: str, *, owner: str) -> None:
        """Forgets a location. Raises NoSuchStorage."""
        await self._row(name, owner=owner)
        async with self._database.write() as session:
            await session.execute(delete(LocationRow).where(LocationRow.owner == owner, LocationRow.name == name))

    async def delete_all(self, *, owner: str, before: int, but: Collection[str] = ()) -> None:
        """Forgets all that an owner added before that time, `but` those of these names.

        What was put into directories that only this owner could use before that time is deleted; elsewhere it stays.
        """
        theirs = (LocationRow.owner == owner, LocationRow.created_at < before, LocationRow.name.not_in(but))
        async with self._database.write() as session:
            await session.execute(delete(LocationRow).where(*theirs))
        for directory in self._directories:
            if USER in directory:
                await in_thread(partial(delete_files, Path(directory.replace(USER, owner)), before=before))

    @asynccontextmanager
    async def open(self, name: str, *, owner: str) -> AsyncIterator[Opened]:
        """A location for use inside of the block. Raises NoSuchStorage."""
        row = await self._row(name, owner=owner)
        secret = self._vault.open(row.secret, purpose=_purpose(owner, name)).decode()
        async with self._opened(place_of(row.place, secret=secret), owner=owner) as opened:
            yield opened

    @asynccontextmanager
    async def _opened(self, place: Place, *, owner: str) -> AsyncIterator[Opened]:
        store: ObjectStore
        match place:
            case DirectoryPlace():
                store = DirectoryStore(self._beneath(place.path, owner=owner))
            case S3Place():
                from uhm_builder.storage.s3 import S3Store  # noqa: PLC0415 - boto3 takes 10 MB, and few workers need it

                store = await in_thread(partial(S3Store, place, rules=self._rules))
            case RegistryPlace():
                store = RegistryStore(place, rules=self._rules)
            case WebDavPlace():
                store = WebDavStore(place, rules=self._rules)
        layout = RegistryLayout() if isinstance(place, RegistryPlace) else ObjectLayout()
        try:
            yield Opened(store=store, layout=layout)
        finally:
            await store.close()

    def _located(self, place: Place, *, owner: str) -> Place:
        """A directory by its whole path: a relative one is below the first that is allowed."""
        if not isinstance(place, DirectoryPlace):
            return place
        whole = Path(os.path.normpath(self._allowed(owner)[0] / place.path))
        self._beneath(str(whole), owner=owner)
        return DirectoryPlace(path=str(whole))

    def _beneath(self, path: str, *, owner: str) -> Beneath:
        """The directory, reached from the allowed one that it is in. Raises InvalidStorage where it is in none."""
        wanted = Path(os.path.normpath(path))
        for top in self._allowed(owner):
            if wanted.is_relative_to(top):
                return Beneath(top, str(wanted.relative_to(top)))
        raise InvalidStorage(
            f"{path[:200]!r} is not below a directory that storage locations may be in.",
            hint=f"Choose one below {' or '.join(map(str, self._allowed(owner)))}; UHM_STORAGE_DIRECTORIES sets these.",
        )

    def _allowed(self, owner: str) -> list[Path]:
        return [Path(directory.replace(USER, owner)) for directory in self._directories]

    async def _row(self, name: str, *, owner: str) -> LocationRow:
        found = await self._find(LocationRow.owner == owner, LocationRow.name == name)
        if not found:
            raise NoSuchStorage(
                f"There is no storage location {name[:80]!r}.",
                hint="`uhm storage ls` lists yours, `uhm storage add` adds one.",
            )
        return found[0]

    async def _find(self, *conditions: ColumnElement[bool], limit: int | None = None) -> list[LocationRow]:
        query = select(LocationRow).where(*conditions).order_by(LocationRow.number.desc()).limit(limit)
        async with self._database.read() as session:
            return list((await session.scalars(query)).all())


@asynccontextmanager
async def answer_soon() -> AsyncIterator[None]:
    """For calls that somebody waits for. Raises StorageUnreachable where a location takes too long inside."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError as error:
        raise StorageUnreachable(
            f"The storage location did not answer within {ANSWER_SECONDS} seconds.", hint="Try again."
        ) from error


async def try_out(opened: Opened) -> None:
    """Writes something, reads it back and deletes it. Raises what failed, with the step in the sentence."""
    content = Content.of(os.urandom(PROBE_BYTES))
    name = opened.layout.probe(content)
    store = opened.store
    step = "written"
    try:
        await store.put(name, content, resume=Resume())
        step = "read"
        if await read_document(store, name, at_most=PROBE_BYTES) != content.read(0, PROBE_BYTES):
            raise ContentMismatch("Something else came back.")
        step = "deleted"
        await store.delete(name)
    except UhmError as error:
        if step != "written":
            with suppress(UhmError):
                await store.delete(name)
        if step == "deleted" and isinstance(error, StorageRefused) and not opened.layout.deletes:
            return
        kind = StorageRefused if isinstance(error, ContentMismatch) else type(error)  # the location's fault, not ours
        raise kind(f"Nothing can be {step} there. {error.message}", hint=error.hint) from error


def _exists(name: str) -> StorageExists:
    return StorageExists(
        f"There is a storage location {name!r} already.",
        hint="`uhm storage rm` forgets it; what is stored there stays.",
    )


def _purpose(owner: str, name: str) -> str:
    return f"storage location {name} of {owner}"


def _location(row: LocationRow) -> Location:
    return Location(
        number=row.number, owner=row.owner, name=row.name, place=place_of(row.place), created_at=row.created_at
    )
