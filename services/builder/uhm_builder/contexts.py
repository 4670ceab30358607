"""Build contexts, and other archives that clients upload: each content once, by its digest, whoever has sent it.

    contexts/
      lock                                  held shared while an upload becomes known, exclusively by the sweep
      <digest hex>                          a whole archive
      .partial-<owner's key>-<digest hex>   the beginning of one that said its digest
      .incoming-<random>                    an upload that did not

An upload that says its digest can break off and go on: what came stays, for as long as a whole archive does. The digest
is taken over all of it in the end; where it is another one, nothing is kept.

A row gives an owner an archive. One that another owner has sent does not exist for this one until it has been sent
again, all of it: to know a digest is no proof of having the content, and whoever asks must not learn what others build.
So the beginnings are per owner, too, and only the end of an upload finds that the archive is there already.

An archive is deleted a day after its last use, and the longest unused ones sooner where all of them together pass a
bound. What a crash leaves, a file without a row or a row without a file, is swept then, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
import uuid
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from uhm_builder.errors import ContextTooLarge, InvalidContext, NoSuchContext, UploadUnderWay
from uhm_builder.mkfs import space_checked
from uhm_builder.models import ContextRow
from uhm_builder.receiving import HeldFile, Receiving
from uhm_builder.threads import entered, in_thread, locked_when_free
from uhm_common.artifacts import locked, plain_digest, sync_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import IO

    from uhm_common.database import Database

__all__ = ["Contexts", "Received", "Upload"]

KEPT_SECONDS = 24 * 3600
NOTED_SECONDS = 3600
"""A use is noted once in so long."""
IN_USE_SECONDS = 2 * NOTED_SECONDS
"""What was used so lately a build may be about to use."""
BROKEN_OFF_SECONDS = 5.0
"""How long the end of a connection that broke off may take to be noticed."""
DOUBT_SECONDS = 0.2
SECOND_NS = 1_000_000_000
PARTIAL, INCOMING = ".partial-", ".incoming-"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
CONTENT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An archive that was taken."""

    id: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """How much of an archive is there; the id is empty where it is not all."""

    digest: str
    size: int
    id: str = ""


class Contexts:
    """Uploads in a directory, and rows that say whose they are."""

    def __init__(self, directory: Path, *, database: Database, max_bytes: int, max_bytes_in_all: int) -> None:
        """One upload may have `max_bytes`."""
        self._directory = directory
        self._database = database
        self._max_bytes = max_bytes
        self._max_bytes_in_all = max_bytes_in_all

    async def receive(self, pieces: AsyncIterator[bytes], *, owner: str, digest: str = "", offset: int = 0) -> Upload:
        """Takes an upload; with `digest`, from `offset` on, and what came stays when it breaks off.

        Raises ContextTooLarge, InvalidContext for an empty one, one whose digest is another, or an offset past what is
        there, UploadUnderWay; then nothing of it is left.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._make_room()
        if not digest:
            return await self._receive_nameless(pieces, owner=owner)
        if known := await self._find(_checked(digest), owner=owner):
            return Upload(id=known.id, size=known.size, digest=digest)
        path = self._partial(digest, owner=owner)
        with space_checked(path):
            async with _held(path) as file:
                try:
                    return await self._go_on(file, pieces, path=path, owner=owner, digest=digest, offset=offset)
                except (ContextTooLarge, InvalidContext):
                    path.unlink(missing_ok=True)
                    raise

    async def _receive_nameless(self, pieces: AsyncIterator[bytes], *, owner: str) -> Upload:
        incoming = self._directory / f"{INCOMING}{uuid.uuid4().hex}"
        try:
            with space_checked(incoming), incoming.open("xb") as file:
                receiving = Receiving(file, max_bytes=self._max_bytes)
                await receiving.take(pieces)
                return await self._keep(incoming, receiving, owner=owner)
        finally:
            incoming.unlink(missing_ok=True)

    async def _go_on(
        self, file: IO[bytes], pieces: AsyncIterator[bytes], *, path: Path, owner: str, digest: str, offset: int
    ) -> Upload:
        there = os.fstat(file.fileno()).st_size
        if not 0 <= offset <= there:
            raise InvalidContext(
                f"The upload cannot go on at {offset}: {there} bytes of {digest} are there.",
                hint="Ask how much is there, and go on from there.",
            )
        receiving = Receiving(file, max_bytes=self._max_bytes)
        await receiving.go_on_at(offset)
        await receiving.take(pieces)
        if receiving.size and receiving.digest != digest:
            # gRPC ends the stream of a call that broke off as if it were whole, and cancels us a moment later.
            await asyncio.sleep(DOUBT_SECONDS)
            raise InvalidContext(
                f"What was sent has the digest {receiving.digest}, not {digest}.",
                hint="It was changed or damaged on the way; nothing of it was kept. Send it again.",
            )
        return await self._keep(path, receiving, owner=owner)

    async def _keep(self, path: Path, receiving: Receiving, *, owner: str) -> Upload:
        """Makes a whole archive known as this owner's."""
        if not receiving.size:
            raise InvalidContext("The build context is empty.", hint="Send a tar archive, plain or gzip.")
        await receiving.settle()
        digest, size = receiving.digest, receiving.size
        final = self._directory / plain_digest(digest)
        async with entered(locked(self._directory / "lock", exclusive=False)):
            await in_thread(partial(_settle, path, final))
            context_id = await self._give(owner=owner, digest=digest, size=size)
        return Upload(id=context_id, size=size, digest=digest)

    async def _give(self, *, owner: str, digest: str, size: int) -> str:
        row = {"id": uuid.uuid4().hex, "owner": owner, "digest": digest, "size": size, "used_at": time.time_ns()}
        with suppress(IntegrityError):  # it is this owner's already
            async with self._database.write() as session:
                await session.execute(insert(ContextRow).values(row))
            return str(row["id"])
        of_owner = (ContextRow.owner == owner, ContextRow.digest == digest)
        change = update(ContextRow).where(*of_owner).values(used_at=row["used_at"]).returning(ContextRow.id)
        async with self._database.write() as session:
            return str((await session.execute(change)).scalar_one())

    async def received(self, digest: str, *, owner: str) -> Received:
        """How much of an archive this owner has sent. Raises InvalidContext for what is no digest."""
        if known := await self._find(_checked(digest), owner=owner):
            return known
        try:
            size = self._partial(digest, owner=owner).stat().st_size
        except FileNotFoundError:
            size = 0
        return Received(digest=digest, size=size)

    async def _find(self, digest: str, *, owner: str) -> Received | None:
        query = select(ContextRow).where(ContextRow.digest == digest, ContextRow.owner == owner)
        async with self._database.read() as session:
            row = (await session.scalars(query)).one_or_none()
        if row is None or not (self._directory / plain_digest(digest)).is_file():
            return None
        await self._note_use(row)
        return Received(id=row.id, digest=digest, size=row.size)

    async def path(self, context_id: str, *, owner: str) -> Path:
        """The archive of an upload. Raises NoSuchContext where there is none of that owner."""
        query = select(ContextRow).where(ContextRow.id == context_id, ContextRow.owner == owner)
        async with self._database.read() as session:
            row = (await session.scalars(query)).one_or_none()
        path = None if row is None else self._directory / plain_digest(row.digest)
        if row is None or path is None or not path.is_file():
            raise NoSuchContext(
                f"There is no build context {context_id!r}.",
                hint="Upload it again; it is kept for a day after its last use.",
            )
        await self._note_use(row)
        return path

    async def _note_use(self, row: ContextRow) -> None:
        now = time.time_ns()
        if row.used_at < now - NOTED_SECONDS * SECOND_NS:
            async with self._database.write() as session:
                await session.execute(update(ContextRow).where(ContextRow.id == row.id).values(used_at=now))

    async def sweep(self) -> None:
        """Deletes what was not used for a day, and what nobody knows."""
        oldest = time.time() - KEPT_SECONDS
        async with self._database.write() as session:
            await session.execute(delete(ContextRow).where(ContextRow.used_at < int(oldest * SECOND_NS)))
        for path in [*self._directory.glob(f"{PARTIAL}*"), *self._directory.glob(f"{INCOMING}*")]:
            _delete_unheld(path, before=oldest)
        await self._delete_unknown()

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Deletes all that an owner has not used since that time, whole or not; what others have sent stays theirs."""
        theirs = (ContextRow.owner == owner, ContextRow.used_at < before)
        async with self._database.write() as session:
            await session.execute(delete(ContextRow).where(*theirs))
        for path in self._directory.glob(f"{PARTIAL}{_key(owner)}-*"):
            _delete_unheld(path, before=before / SECOND_NS)
        await self._delete_unknown()

    async def _delete_unknown(self) -> None:
        """Deletes archives without a row; an upload that becomes known just now is waited for."""
        if not self._directory.is_dir():
            return
        async with entered(locked(self._directory / "lock", exclusive=True)):
            async with self._database.read() as session:
                known = {plain_digest(digest) for digest in await session.scalars(select(ContextRow.digest))}
            for path in self._directory.iterdir():
                if CONTENT.fullmatch(path.name) and path.name not in known:
                    path.unlink()

    async def _make_room(self) -> None:
        """Deletes the longest unused where all together pass the bound. Raises ContextTooLarge where none can go."""
        if await in_thread(self._size) < self._max_bytes_in_all:
            return
        for path in sorted(self._directory.glob(f"{PARTIAL}*"), key=_modified):
            _delete_unheld(path, before=time.time())
        excess = await in_thread(self._size) - self._max_bytes_in_all
        old = ContextRow.used_at < time.time_ns() - IN_USE_SECONDS * SECOND_NS
        async with self._database.write() as session:
            for row in list(await session.scalars(select(ContextRow).where(old).order_by(ContextRow.used_at))):
                if excess >= 0:
                    await session.execute(delete(ContextRow).where(ContextRow.id == row.id, old))
                    excess -= row.size
        await self._delete_unknown()
        if await in_thread(self._size) >= self._max_bytes_in_all:
            raise ContextTooLarge(
                f"Build contexts take all of the {self._max_bytes_in_all} bytes that they may have.",
                hint="Try again when some were not used for two hours, or raise UHM_MAX_CONTEXTS_BYTES.",
            )

    def _size(self) -> int:
        return sum(map(_bytes, self._directory.iterdir()))

    def _partial(self, digest: str, *, owner: str) -> Path:
        return self._directory / f"{PARTIAL}{_key(owner)}-{plain_digest(digest)}"


@asynccontextmanager
async def _held(path: Path) -> AsyncIterator[IO[bytes]]:
    """The file; another connection of its owner's, which broke off, may still be about to let go of it."""
    held = HeldFile(path)
    try:
        async with locked_when_free(lambda: held, patience=BROKEN_OFF_SECONDS):
            yield held.file
    except BlockingIOError as error:
        raise UploadUnderWay(
            "The same archive is being uploaded by another connection.", hint="Wait for it, or end it."
        ) from error


def _key(owner: str) -> str:
    """An owner in the name of a file."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def _settle(path: Path, final: Path) -> None:
    """Gives a file its name; where the same is there already, that stays and this goes."""
    if final.exists():
        path.unlink()
    else:
        path.rename(final)
        sync_directory(final.parent)


def _checked(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise InvalidContext(f"{digest[:80]!r} is no digest.", hint="It is sha256: and 64 hexadecimal digits.")
    return digest


def _bytes(path: Path) -> int:
    """The size of a file, which others may delete or rename meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _delete_unheld(path: Path, *, before: float) -> None:
    """Deletes a file that was last changed before then, and that nobody holds."""
    if _modified(path) < before:
        with suppress(BlockingIOError), HeldFile(path):
            path.unlink(missing_ok=True)
