"""Reading what `docker save` writes, as it comes: which entries are layers, and which layer each one is.

Engines up to 24 write `<id>/json`, `<id>/layer.tar` and at the very end `manifest.json`, which would say which layer is
which. Their ids are digests over the layer's chain ID and its metadata (docker's image/v1 CreateID), so an id can be
recognised before the layer comes. Engines from 25 on write an OCI layout, `blobs/sha256/<digest>`; there a layer's name
is its diffID, unless the containerd image store is in use, which keeps layers compressed. What cannot be recognised by
name is known by its content, once it has been read.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from uhm_builder.errors import ContentMismatch
from uhm_builder.inflate import GZIP_MAGIC, ZSTD_MAGIC
from uhm_builder.pieces import PIECE
from uhm_builder.sources.packed import BLOBS, JSON_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Entry", "SavedImage", "chain_ids", "recognise"]

TAR_MAGIC_AT, TAR_MAGIC = 257, b"ustar"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is a layer, or may be. It must be read, or left, before the next one is asked for."""

    diff_id: str
    """Empty where it is not known yet."""
    size: int
    first: bytes
    rest: IO[bytes]

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, which may be compressed. Raises ContentMismatch where the archive ends early."""
        yield self.first
        with _readable():
            while piece := self.rest.read(PIECE):
                yield piece


class SavedImage:
    """An archive that is being received; `diff_ids` are those of the image, the bottom layer first. Blocks."""

    def __init__(self, pieces: Iterator[bytes], *, diff_ids: Sequence[str]) -> None:
        self._tar = tarfile.open(fileobj=cast("IO[bytes]", _Stream(pieces)), mode="r|", bufsize=PIECE)  # noqa: SIM115
        self._diff_ids = diff_ids
        self._legacy: dict[str, str] = {}

    def next_layer(self) -> Entry | None:
        """The next entry that may be a layer; None at the end. Raises ContentMismatch for what is no archive."""
        with _readable():
            while member := self._tar.next():
                if member.isfile() and (entry := self._entry(member)):
                    return entry
        return None

    def _entry(self, member: tarfile.TarInfo) -> Entry | None:
        file = self._tar.extractfile(member)
        assert file is not None
        directory, _, name = member.name.rpartition("/")
        if name == "json" and member.size <= JSON_MAX:
            self._legacy[directory] = recognise(directory, json.loads(file.read()), self._diff_ids)
            return None
        if name == "layer.tar":
            return Entry(self._legacy.get(directory, ""), member.size, b"", file)
        if not member.name.startswith(BLOBS):
            return None
        diff_id = f"sha256:{name}" if f"sha256:{name}" in self._diff_ids else ""
        first = file.read(tarfile.BLOCKSIZE)
        is_layer = diff_id or first.startswith((GZIP_MAGIC, ZSTD_MAGIC)) or first[TAR_MAGIC_AT:].startswith(TAR_MAGIC)
        return Entry(diff_id, member.size, first, file) if is_layer else None


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ID of each layer (OCI image specification, config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        together = f"{chain[-1]} {diff_id}" if chain else diff_id
        chain.append(f"sha256:{hashlib.sha256(together.encode()).hexdigest()}" if chain else diff_id)
    return chain


def recognise(legacy_id: str, record: dict[str, Any], diff_ids: Sequence[str]) -> str:
    """The diffID of the layer with this id, whose `json` is `record`; empty where no layer gives that id."""
    parent = {"parent": f"sha256:{record['parent']}"} if record.get("parent") else {}
    known = {key: value for key, value in record.items() if key not in ("id", "parent")}
    for fields in (known, {key: value for key, value in known.items() if key != "os"}):
        for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
            if hashlib.sha256(_go_json(fields | parent | {"layer_id": chain_id})).hexdigest() == legacy_id:
                return diff_id
    return ""


def _go_json(record: dict[str, Any]) -> bytes:
    """As Go writes a map: its own keys sorted, values as they were, without spaces, HTML characters escaped."""
    text = json.dumps({key: record[key] for key in sorted(record)}, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise ContentMismatch(f"The Docker Engine's archive cannot be read: {error}.") from error


class _Stream(io.RawIOBase):
    """Pieces as a file that can only be read forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken
