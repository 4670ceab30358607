"""Content on its way to a storage location: bytes and files read as one, from any offset, as often as needed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_builder.pieces import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Content"]

Part = bytes | Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Parts one after the other. Its methods block, and may be called from several threads."""

    parts: tuple[Part, ...]
    size: int
    digest: str
    """`sha256:…` of all parts together."""

    @classmethod
    def of(cls, *parts: Part, digest: str = "") -> Content:
        """Measures parts, and hashes them where their digest is not known. Raises OSError."""
        size = sum(_size(part) for part in parts)
        content = cls(parts=parts, size=size, digest=digest)
        if digest:
            return content
        sha256 = hashlib.sha256()
        for piece in content.pieces():
            sha256.update(piece)
        return cls(parts=parts, size=size, digest=f"sha256:{sha256.hexdigest()}")

    def pieces(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes from an offset on, in pieces of at most PIECE bytes. Raises OSError."""
        left = self.size - offset if length is None else min(length, self.size - offset)
        for part in self.parts:
            size = _size(part)
            if offset >= size:
                offset -= size
                continue
            taken = min(size - offset, left)
            yield from _pieces(part, offset, taken)
            left -= taken
            offset = 0
            if left <= 0:
                return

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes at once. Raises OSError."""
        return b"".join(self.pieces(offset, length))


def _size(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part.stat().st_size


def _pieces(part: Part, offset: int, length: int) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part[offset : offset + length]
        return
    with part.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_SEQUENTIAL)
        file.seek(offset)
        while length > 0 and (piece := file.read(min(PIECE, length))):
            length -= len(piece)
            yield piece
