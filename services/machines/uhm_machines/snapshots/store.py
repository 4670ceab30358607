"""The snapshots of this host: found by key, kept within a bound, the least recently used given up first.

    snapshots/                    0700
      <key>/                      complete, because it was renamed to its name
        memory                    the guest's memory, sparse; machines map it privately
        state                     the state of the devices
        disk.qcow2                ready only: what the service had written; its clones have hard links to it
        snapshot.json             the record
      making-<random>/            one that is being made, as a machine's directory (uhm_machines.files), or a leftover

A key is a digest of all that a snapshot is bound to, so one that does not fit is not found. Deleting a snapshot that
machines run from takes nothing from them: they have its memory mapped, and its disk by a link of their own.
Only the service that owns the machines reads and writes here, so what is in memory is what is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from uhm_common.artifacts import sync
from uhm_common.logs import get_logger
from uhm_machines.machine import StartKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uhm_machines.machine import Workload
    from uhm_machines.shape import Shape

__all__ = ["MAKING", "Snapshot", "SnapshotStore", "ready_key", "template_key"]

log = get_logger()

MAKING: Final = "making-"
_RECORD: Final = "snapshot.json"
_RECORDED: Final = ("kind", "image_id", "disk_digest", "made_ns", "bytes")


def template_key(shape: Shape) -> str:
    """Names the template of a shape."""
    return _digest(StartKind.TEMPLATE, shape.digest)


def ready_key(shape: Shape, *, image_id: str, disk_digest: str, workload: Workload) -> str:
    """Names the snapshot of an image's service in a shape; the workload is what it was started with."""
    settings = json.dumps({**asdict(workload), "hostname": ""}, sort_keys=True)
    return _digest(StartKind.READY, shape.digest, image_id, disk_digest, settings)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One that is complete."""

    key: str
    directory: Path
    kind: StartKind
    image_id: str
    """Empty for a template."""
    disk_digest: str
    """Of the image's disk; empty for a template."""
    made_ns: int
    bytes: int
    """What it takes of the disk."""

    @property
    def memory(self) -> Path:
        """The guest's memory."""
        return self.directory / "memory"

    @property
    def state(self) -> Path:
        """The state of its devices."""
        return self.directory / "state"

    @property
    def disk(self) -> Path:
        """What its service had written."""
        return self.directory / "disk.qcow2"


class SnapshotStore:
    """Finds, commits and deletes snapshots."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._known: dict[str, Snapshot] = {}
        """The most recently used last."""

    def open(self) -> None:
        """Reads what there is, and removes what was being made when the service ended."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: list[tuple[float, Snapshot]] = []
        for directory in self._directory.glob("*/"):
            snapshot = None if directory.name.startswith(MAKING) else _read(directory)
            if snapshot is None:
                shutil.rmtree(directory, ignore_errors=True)
            else:
                found.append(((directory / _RECORD).stat().st_mtime, snapshot))
        self._known = {snapshot.key: snapshot for _, snapshot in sorted(found, key=lambda entry: entry[0])}
        self.sweep()

    @property
    def bytes(self) -> int:
        """What all of them take of the disk."""
        return sum(snapshot.bytes for snapshot in self._known.values())

    def all(self) -> list[Snapshot]:
        """All of them, the least recently used first."""
        return list(self._known.values())

    def find(self, key: str) -> Snapshot | None:
        """The snapshot of that key, where there is one."""
        return self._known.get(key)

    def touch(self, snapshot: Snapshot) -> None:
        """Notes that a snapshot is being used."""
        if self._known.pop(snapshot.key, None) is not None:
            self._known[snapshot.key] = snapshot
            os.utime(snapshot.directory / _RECORD)

    def new_directory(self) -> Path:
        """A place to make one in."""
        directory = self._directory / f"{MAKING}{uuid.uuid4().hex}"
        directory.mkdir(mode=0o700)
        return directory

    def seal(
        self, directory: Path, *, key: str, kind: StartKind, image_id: str = "", disk_digest: str = ""
    ) -> Snapshot:
        """Writes the record of a snapshot that was made in a directory of ours, and flushes all of it. Blocks."""
        snapshot = Snapshot(
            key=key,
            directory=self._directory / key,
            kind=kind,
            image_id=image_id,
            disk_digest=disk_digest,
            made_ns=time.time_ns(),
            bytes=sum(path.stat().st_blocks * 512 for path in directory.iterdir()),
        )
        record = {name: getattr(snapshot, name) for name in _RECORDED}
        (directory / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
        sync(directory)
        return snapshot

    def commit(self, directory: Path, snapshot: Snapshot) -> None:
        """Gives a sealed snapshot its name, in place of one that had it."""
        self.drop(snapshot.key)
        directory.rename(snapshot.directory)
        self._known[snapshot.key] = snapshot

    def drop(self, key: str) -> None:
        """Deletes one, where it exists."""
        if snapshot := self._known.pop(key, None):
            gone = self._directory / f"{MAKING}{uuid.uuid4().hex}"  # a crash on the way leaves no half of one
            snapshot.directory.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            log.info("snapshot.deleted", key=key[:12], kind=snapshot.kind, image_id=snapshot.image_id)

    def drop_where(self, unwanted: Callable[[Snapshot], bool]) -> None:
        """Deletes those that something is true of."""
        for snapshot in self.all():
            if unwanted(snapshot):
                self.drop(snapshot.key)

    def sweep(self) -> None:
        """Gives up the least recently used until the rest is within the bound; the last one used stays."""
        for snapshot in self.all()[:-1]:
            if self.bytes <= self._max_bytes:
                return
            self.drop(snapshot.key)


def _read(directory: Path) -> Snapshot | None:
    try:
        record = json.loads((directory / _RECORD).read_text())
        values = {name: record[name] for name in _RECORDED} | {"kind": StartKind(record["kind"])}
        return Snapshot(key=directory.name, directory=directory, **values)
    except (OSError, ValueError, KeyError, TypeError):
        return None
