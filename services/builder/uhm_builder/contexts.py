"""Build contexts: archives that clients upload and one build uses.

An upload is written beside its final name, flushed and renamed; then its row makes it known. What a crash leaves, a
file without a row or a row without a file, is swept when it is a day old.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
import uuid
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from sqlalchemy import delete, insert, select

from uhm_builder.errors import ContextTooLarge, InvalidContext, NoSuchContext
from uhm_builder.mkfs import space_checked
from uhm_builder.models import ContextRow
from uhm_common.artifacts import sync_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from uhm_common.database import Database

__all__ = ["Contexts", "Upload"]

KEPT_SECONDS = 24 * 3600
INCOMING = ".incoming-"
ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A context that was taken."""

    id: str
    size: int


class Contexts:
    """Uploads in a directory, each with a row that says whose it is."""

    def __init__(self, directory: Path, *, database: Database, max_bytes: int) -> None:
        self._directory = directory
        self._database = database
        self._max_bytes = max_bytes

    async def receive(self, pieces: AsyncIterator[bytes], *, owner: str) -> Upload:
        """Takes an upload. Raises ContextTooLarge, InvalidContext for an empty one; then nothing of it is left."""
        context_id = uuid.uuid4().hex
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        incoming = self._directory / f"{INCOMING}{context_id}"
        try:
            with space_checked(incoming):
                with incoming.open("xb") as file:
                    size = await self._write(pieces, file)
                incoming.rename(self._directory / context_id)
                await asyncio.to_thread(sync_directory, self._directory)
        finally:
            incoming.unlink(missing_ok=True)
        row = {"id": context_id, "owner": owner, "size": size, "created_at": time.time_ns()}
        async with self._database.write() as session:
            await session.execute(insert(ContextRow).values(row))
        return Upload(id=context_id, size=size)

    async def _write(self, pieces: AsyncIterator[bytes], file: IO[bytes]) -> int:
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size > self._max_bytes:
                raise ContextTooLarge(
                    f"The build context has more than {self._max_bytes} bytes.",
                    hint="Leave out what the build does not need with a .dockerignore file.",
                )
            await asyncio.to_thread(file.write, piece)
        if not size:
            raise InvalidContext("The build context is empty.", hint="Send a tar archive, plain or gzip.")
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
        return size

    async def path(self, context_id: str, *, owner: str) -> Path:
        """The archive of an upload. Raises NoSuchContext where there is none of that owner."""
        query = select(ContextRow.id).where(ContextRow.id == context_id, ContextRow.owner == owner)
        async with self._database.read() as session:
            found = await session.scalar(query)
        if found is None or not (self._directory / found).is_file():
            raise NoSuchContext(
                f"There is no build context {context_id!r}.",
                hint="Upload it again; it is kept for a day, for one build.",
            )
        return self._directory / found

    async def delete(self, context_id: str) -> None:
        """Deletes an upload after its build."""
        async with self._database.write() as session:
            await session.execute(delete(ContextRow).where(ContextRow.id == context_id))
        if ID.fullmatch(context_id):
            (self._directory / context_id).unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Deletes what is older than a day."""
        oldest = time.time() - KEPT_SECONDS
        async with self._database.write() as session:
            await session.execute(delete(ContextRow).where(ContextRow.created_at < int(oldest * 1e9)))
        for file in self._directory.glob("*"):
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)
