"""Where an exported disk is written to: a file that has its name only when it is whole, or standard output."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Target", "target_of"]

_HOLE = 4096


class Target:
    """Takes a disk's bytes in order. Where it is a file, zeros become holes."""

    def __init__(self, file: IO[bytes], *, is_sparse: bool) -> None:
        self._file = file
        self._is_sparse = is_sparse
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Takes the next piece."""
        self._digest.update(piece)
        self.size += len(piece)
        if self._is_sparse and len(piece) >= _HOLE and not piece.strip(b"\0"):
            self._file.seek(len(piece), os.SEEK_CUR)
        else:
            self._file.write(piece)

    def digest(self) -> str:
        """`sha256:` and the digest of what was taken."""
        return f"sha256:{self._digest.hexdigest()}"

    def finish(self) -> None:
        """Writes out what is still held back."""
        if self._is_sparse:
            self._file.truncate(self.size)
        self._file.flush()


@contextmanager
def target_of(path: Path | None) -> Iterator[Target]:
    """A file of that name, or standard output for None. Where the block raises, there is no file, nor part of one."""
    if path is None:
        target = Target(sys.stdout.buffer, is_sparse=False)
        yield target
        target.finish()
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            target = Target(file, is_sparse=True)
            yield target
            target.finish()
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
