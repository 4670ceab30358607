"""Writing what a client sends to a file: digested on the way, bounded, in pieces that are worth a thread's while."""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import IO, TYPE_CHECKING

from uhm_builder.errors import ContextTooLarge
from uhm_builder.pieces import PIECE
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["HeldFile", "Receiving"]


class Receiving:
    """A file that grows, and the digest of all that is in it."""

    def __init__(self, file: IO[bytes], *, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._sha256 = hashlib.sha256()
        self._waiting: list[bytes] = []
        self.size = 0

    @property
    def digest(self) -> str:
        """Of what has come so far."""
        return f"sha256:{self._sha256.hexdigest()}"

    async def go_on_at(self, offset: int) -> None:
        """Takes what the file has up to there for received, and drops the rest."""
        await in_thread(lambda: self._read_up_to(offset))

    def _read_up_to(self, offset: int) -> None:
        self._file.seek(0)
        while self.size < offset and (piece := self._file.read(min(PIECE, offset - self.size))):
            self._sha256.update(piece)
            self.size += len(piece)
        self._file.truncate(self.size)
        self._file.seek(self.size)

    async def take(self, pieces: AsyncIterator[bytes]) -> None:
        """Writes all that comes. Raises ContextTooLarge; what came before an error of the sender's is written."""
        waiting = 0
        try:
            async for piece in pieces:
                self.size += len(piece)
                if self.size > self._max_bytes:
                    raise ContextTooLarge(
                        f"The upload has more than {self._max_bytes} bytes.",
                        hint="UHM_MAX_CONTEXT_BYTES is the bound; a build leaves files out with .dockerignore.",
                    )
                self._waiting.append(piece)
                waiting += len(piece)
                if waiting >= PIECE:
                    await in_thread(self._write)
                    waiting = 0
        finally:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            self._file.write(piece)
            self._sha256.update(piece)
        self._file.flush()

    async def settle(self) -> None:
        """Flushes the file to the disk."""
        await in_thread(lambda: os.fdatasync(self._file.fileno()))


class HeldFile:
    """A file, made if absent, that nobody else has in such a block. Whoever deletes it must be in one, too.

    Entering raises BlockingIOError where somebody else has it.
    """

    file: IO[bytes]

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        while True:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.file = os.fdopen(handle, "r+b")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_named(handle):  # not deleted between open and flock
                    return
            except BaseException:
                self.file.close()
                raise
            self.file.close()

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _is_named(self, handle: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(handle))
        except FileNotFoundError:
            return False
