"""A store with disks that tests make of tar archives: a base's root file system and layers, and no boot partition."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

from tests.integration.builder_system import MKFS
from uhm_builder.mkfs import OPTIONS
from uhm_common.artifacts import ArtifactStore
from uhm_common.process import run
from uhm_guest.rootfs import base_tar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20
SUPERBLOCK = 1024
BASE = f"sha256:{'b' * 64}"

__all__ = ["add_disk", "add_layer", "entry", "make_store", "make_tar", "without_checksum"]


def make_store(root: Path) -> ArtifactStore:
    """A store with a base."""
    store = ArtifactStore(root)
    _make_blob(store.base(BASE) / "base.erofs", base_tar())
    return store


def add_disk(store: ArtifactStore, *archives: bytes) -> str:
    """A disk of these layers; answers its digest."""
    return add_disk_of(store, [add_layer(store, archive) for archive in archives])


def add_disk_of(store: ArtifactStore, diff_ids: list[str]) -> str:
    """A disk of layers that are there."""
    digest = f"sha256:{hashlib.sha256(json.dumps(diff_ids).encode()).hexdigest()}"
    disk = store.disk(digest)
    disk.mkdir(parents=True)
    (disk / "disk.json").write_text(json.dumps({"digest": digest, "base": BASE, "layers": diff_ids, "size": 0}))
    return digest


def add_layer(store: ArtifactStore, archive: bytes) -> str:
    """A layer; answers its diffID."""
    diff_id = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    if not store.layer(diff_id).exists():
        _make_blob(store.layer(diff_id), archive)
    return diff_id


def without_checksum(blob: bytes) -> bytearray:
    """An EROFS blob that says to have no checksum, with which the kernel mounts none whose first block was changed.

    A flag of the superblock says so (github.com/torvalds/linux, fs/erofs/erofs_fs.h).
    """
    unchecked = bytearray(blob)
    unchecked[SUPERBLOCK + 8] &= ~1
    return unchecked


def entry(kind: bytes = tarfile.REGTYPE, *, content: bytes = b"", target: str = "", **fields: int) -> tuple:
    """What is at a path: `entry(content=…)`, `entry(tarfile.DIRTYPE, mode=0o1777)`."""
    return kind, content, target, fields


def make_tar(entries: Mapping[str, bytes | str | tuple]) -> bytes:
    """An archive of files (bytes), symbolic links (text) and whatever `entry` has made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, what in entries.items():
            if isinstance(what, bytes):
                kind, content, target, fields = entry(content=what)
            elif isinstance(what, str):
                kind, content, target, fields = entry(tarfile.SYMTYPE, target=what)
            else:
                kind, content, target, fields = what
            header = tarfile.TarInfo(name)
            header.type, header.size, header.linkname = kind, len(content), target
            header.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            for field, value in fields.items():
                setattr(header, field, value)
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def _make_blob(path: Path, archive: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run([MKFS, *OPTIONS, path], timeout=60, stdin=archive)
    size = path.stat().st_size
    with path.open("r+b") as blob:
        blob.truncate(size + -size % MIB)
