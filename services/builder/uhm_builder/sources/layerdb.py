"""A layer of a Docker Engine on this machine, read out of the engine's own directories.

`docker save` writes all layers of an image, and each of them to a temporary file first. But an engine with the overlay2
driver has what it takes to give one layer alone: the directory with the layer's files, and beside it all other bytes of
the archive that the layer came in, its headers and padding (`tar-split.json.gz`; github.com/vbatts/tar-split). Woven
together they are that archive again, byte by byte. So nothing that is found there is trusted: the archive's digest is
the layer's diffID or it is not, and the file system made of it is the one that any other source would have given.

    <root>/image/overlay2/layerdb/sha256/<chain ID>/    diff  cache-id  size  tar-split.json.gz
    <root>/overlay2/<cache-id>/diff/                    the files

The directories are the root user's. Who cannot read them, or has an engine elsewhere, uses `docker save`.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from isal import igzip

from uhm_builder.pieces import PIECE
from uhm_builder.sources.saved_stream import chain_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LayerDatabase", "LayerUnreadable", "StoredLayer"]

DRIVER = "overlay2"
LINE_MAX = 64 << 20
FILE, SEGMENT = 1, 2
"""The kinds of entries of a tar-split record."""
NAMED_ONLY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CONTENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LayerUnreadable(Exception):
    """A layer's directory is not what its record says, or went away; the engine itself may still give the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """A layer as the engine keeps it."""

    record: Path
    files: Path
    size: int
    """Bytes of all its files."""

    def pieces(self) -> Iterator[bytes]:
        """The uncompressed archive of the layer. Blocks; raises LayerUnreadable."""
        try:
            with _opened(self.record) as record, _Files.of(self.files) as files:
                for line in _lines(record):
                    entry: dict[str, Any] = json.loads(line)
                    if entry["type"] == SEGMENT:
                        yield base64.b64decode(entry["payload"])
                    elif entry["type"] == FILE and entry.get("size"):
                        yield from files.content(_name(entry), size=int(entry["size"]))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise LayerUnreadable(f"{self.files}: {error}") from error


@dataclass(frozen=True, slots=True)
class LayerDatabase:
    """The directories of one engine."""

    root: Path

    @classmethod
    def of(cls, image: dict[str, Any]) -> LayerDatabase | None:
        """That of the engine which gave this answer to `docker inspect`, where it may be on this machine."""
        driver = image.get("GraphDriver") or {}
        upper = Path((driver.get("Data") or {}).get("UpperDir") or "/")
        if driver.get("Name") != DRIVER or upper.parent.parent.name != DRIVER:
            return None
        database = cls(upper.parent.parent.parent)
        return database if os.access(database._records, os.R_OK | os.X_OK) else None

    @property
    def _records(self) -> Path:
        return self.root / "image" / DRIVER / "layerdb" / "sha256"

    def layers(self, diff_ids: Sequence[str]) -> dict[str, StoredLayer]:
        """Those of an image's layers that are there, by diffID; `diff_ids` has all of them, the bottom one first."""
        found = {}
        for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
            try:
                found[diff_id] = self._layer(self._records / chain_id.removeprefix("sha256:"))
            except (OSError, ValueError):  # none of this engine's, or it goes away just now
                continue
        return found

    def _layer(self, directory: Path) -> StoredLayer:
        cache_id = (directory / "cache-id").read_text().strip()
        if not cache_id.isalnum():
            raise ValueError(cache_id)
        record = directory / "tar-split.json.gz"
        record.stat()
        return StoredLayer(
            record=record, files=self.root / DRIVER / cache_id / "diff", size=int((directory / "size").read_text())
        )


class _Files:
    """The files below a directory by their names in an archive. No symbolic link is followed, and nothing waits."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path: tuple[str, ...] = ()
        self._directory = root

    @classmethod
    @contextmanager
    def of(cls, directory: Path) -> Iterator[_Files]:
        root = os.open(directory, NAMED_ONLY)
        files = cls(root)
        try:
            yield files
        finally:
            files._leave()
            os.close(root)

    def content(self, name: str, *, size: int) -> Iterator[bytes]:
        """Exactly so many bytes of a regular file. Raises OSError, ValueError."""
        *directories, last = _parts(name)
        self._enter(tuple(directories))
        handle = os.open(last, CONTENT, dir_fd=self._directory)
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                message = f"{name!r} is not a file of {size} bytes"
                raise ValueError(message)
            left = size
            while left:
                piece = file.read(min(left, PIECE))
                if not piece:
                    message = f"{name!r} became shorter"
                    raise ValueError(message)
                left -= len(piece)
                yield piece

    def _enter(self, path: tuple[str, ...]) -> None:
        """Makes a directory the current one; an archive mostly stays in one for a while."""
        if path == self._path:
            return
        with ExitStack() as stack:
            directory = self._root
            for part in path:
                directory = os.open(part, NAMED_ONLY, dir_fd=directory)
                stack.callback(os.close, directory)
            entered = os.dup(directory)
        self._leave()
        self._path, self._directory = path, entered

    def _leave(self) -> None:
        if self._directory != self._root:
            os.close(self._directory)
        self._path, self._directory = (), self._root


def _opened(record: Path) -> IO[bytes]:
    return cast("IO[bytes]", igzip.open(record, "rb"))  # type: ignore[no-untyped-call]


def _lines(record: IO[bytes]) -> Iterator[bytes]:
    while line := record.readline(LINE_MAX):
        if not line.endswith(b"\n"):
            message = "a line of the record ends early"
            raise ValueError(message)
        yield line


def _name(entry: dict[str, Any]) -> str:
    raw = entry.get("name_raw")
    return os.fsdecode(base64.b64decode(raw)) if raw else str(entry["name"])


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        message = f"{name!r} leads out of the layer"
        raise ValueError(message)
    return parts
