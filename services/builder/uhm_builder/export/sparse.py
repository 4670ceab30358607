"""A file's content in pieces, holes from memory: to read them would fill the page cache with zeros."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

from uhm_builder.pieces import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["digest_of", "pieces"]

_ZEROS = bytes(PIECE)


def pieces(path: Path) -> Iterator[bytes]:
    """All of it, in order, in pieces of at most PIECE bytes."""
    with path.open("rb", buffering=0) as file:
        at, end = 0, os.fstat(file.fileno()).st_size
        while at < end:
            data = _data_from(file.fileno(), at, end=end)
            for start in range(at, data, PIECE):
                yield _ZEROS if data - start >= PIECE else _ZEROS[: data - start]
            at = data
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE) if at < end else end
            file.seek(at)
            while at < hole and (piece := file.read(min(PIECE, hole - at))):
                at += len(piece)
                yield piece


def digest_of(path: Path, *, goes_on: Callable[[], bool] = lambda: True) -> str:
    """`sha256:` and the digest of a file; not that of all of it where it does not go on."""
    digest = hashlib.sha256()
    for piece in pieces(path):
        digest.update(piece)
        if not goes_on():
            break
    return f"sha256:{digest.hexdigest()}"


def _data_from(descriptor: int, at: int, *, end: int) -> int:
    """Where the next data is; the end where there is none."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        raise
