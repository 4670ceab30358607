"""The content-addressed store of layers, bases and disks, which the builder writes and the machines service reads.

    artifacts/
      disks.lock                    held shared while a disk is composed or leased, exclusively for what is deleted
      used/<digest hex>             held shared by every process that composes disks on this base
      locks/                        one lock per artifact that is being made
      staging.lock                  held shared while a staging directory comes into being, exclusively by its sweep
      staging/<random>/             work in progress, locked by its owner; what nobody locks is a crash's leftover
      layers/<diffID hex>.erofs     one blob per container layer
      layers/<diffID hex>.verity    its hash tree, where an export was sealed
      bases/<digest hex>/           boot.raw base.erofs state.raw vmlinux initramfs base.json
      disks/<digest hex>/           head.raw tail.raw disk.vmdk disk.json
      disks/<digest hex>/leases/    one empty file per machine that uses the disk, named by the machine's id

Things are made in `staging` and renamed to their names, which are digests of what went in: a name that exists is
complete.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uhm_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Artifact", "ArtifactStore", "Kind", "locked", "plain_digest"]


LAYER_SUFFIXES = (".erofs", ".verity")


class Kind(StrEnum):
    """What is in the store, and the directory that it is in."""

    LAYER = "layers"
    BASE = "bases"
    DISK = "disks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something in the store, by what its name is made of: a diffID, or the digest of a base or a disk."""

    kind: Kind
    digest: str


def plain_digest(digest: str) -> str:
    """The hexadecimal part of `sha256:…`, which is what file names are made of."""
    return digest.removeprefix("sha256:")


@contextmanager
def locked(path: Path, *, exclusive: bool, blocking: bool = True) -> Iterator[None]:
    """Holds an advisory lock (flock) on a file, made if absent. Raises BlockingIOError where it would have to wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        fcntl.flock(handle, mode if blocking else mode | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Paths, staging, locks, leases, and what is there."""

    root: Path

    def layer(self, diff_id: str) -> Path:
        """Where the EROFS blob of a layer is, whether or not it exists yet."""
        return self.root / "layers" / f"{plain_digest(diff_id)}.erofs"

    def base(self, digest: str) -> Path:
        """The directory of a base."""
        return self.root / "bases" / plain_digest(digest)

    def disk(self, digest: str) -> Path:
        """The directory of an image's disk."""
        return self.root / "disks" / plain_digest(digest)

    @contextmanager
    def disks(self, *, exclusive: bool) -> Iterator[None]:
        """Shared: nothing is deleted meanwhile. Exclusive: no disk is composed or leased meanwhile. Hold it briefly.

        Whoever has written down what it needs, and has then held this shared for a moment, keeps what it finds: a
        deletion that did not see the note is over, a later one will see it. Take it outside of transactions.
        """
        with locked(self.root / "disks.lock", exclusive=exclusive):
            yield

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A directory for work in progress, deleted at the end; rename out of it with `commit`."""
        path = self.root / "staging" / uuid.uuid4().hex
        with ExitStack() as stack:
            with locked(self.root / "staging.lock", exclusive=False):
                path.mkdir(parents=True)
                stack.enter_context(locked(path / ".lock", exclusive=True))
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            yield path

    def commit(self, staged: Path, final: Path) -> None:
        """Gives a staged file or directory its name, durably. Where the name exists, the same is there, and stays."""
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            return
        sync(staged)
        try:
            staged.rename(final)
        except OSError:
            if not final.exists():
                raise
        sync_directory(final.parent)

    @contextmanager
    def making(self, final: Path, *, blocking: bool = True) -> Iterator[None]:
        """Serialises those who want to make the same artifact, across processes; look whether it exists inside.

        Raises BlockingIOError where it would have to wait and may not.
        """
        with locked(self._lock(final), exclusive=True, blocking=blocking):
            yield

    def _lock(self, final: Path) -> Path:
        return self.root / "locks" / f"{final.parent.name}-{final.name}"

    def take_lease(self, disk_digest: str, *, holder: str) -> None:
        """Notes that a machine uses a disk, so that it is not deleted. Raises NotFound where there is no such disk."""
        with self.disks(exclusive=False):
            disk = self.disk(disk_digest)
            if not (disk / "disk.vmdk").exists():
                raise NotFound(f"The disk {disk_digest} is not there any more.", hint="Make the image again.")
            (disk / "leases").mkdir(exist_ok=True)
            (disk / "leases" / holder).touch()

    def drop_lease(self, disk_digest: str, *, holder: str) -> None:
        """Ends a lease; one that does not exist has ended already."""
        (self.disk(disk_digest) / "leases" / holder).unlink(missing_ok=True)

    def lease_holders(self, disk_digest: str) -> list[str]:
        """Ids of the machines that use a disk; none where the disk is not there, or is deleted while we look."""
        try:
            return sorted(path.name for path in (self.disk(disk_digest) / "leases").iterdir())
        except FileNotFoundError:
            return []

    @contextmanager
    def using_base(self, digest: str) -> Iterator[None]:
        """Keeps a base from being deleted while this process composes on it. Raises NotFound where it has gone."""
        with ExitStack() as stack:
            with self.disks(exclusive=False):
                stack.enter_context(locked(self._used(digest), exclusive=False))
            if not self.base(digest).exists():
                raise NotFound(f"The base {digest} is not there any more.", hint="It is made with the next image.")
            yield

    def is_base_used(self, digest: str) -> bool:
        """Whether a process holds `using_base`."""
        try:
            with locked(self._used(digest), exclusive=True, blocking=False):
                return False
        except BlockingIOError:
            return True

    def _used(self, digest: str) -> Path:
        return self.root / "used" / plain_digest(digest)

    def stored(self) -> set[Artifact]:
        """All layers, bases and disks that are there."""
        return {
            Artifact(kind=kind, digest=f"sha256:{path.name.partition('.')[0]}")
            for kind in Kind
            for path in self.root.glob(f"{kind}/*")
        }

    def size(self, artifact: Artifact) -> int:
        """Bytes that an artifact takes up on the file system; 0 where it is not there."""
        return sum(map(_allocated, self._paths(artifact)))

    def take_out(self, artifact: Artifact, *, into: Path) -> None:
        """Moves an artifact into a staging directory, to be deleted there; the caller holds `disks(exclusive=True)`."""
        for path in self._paths(artifact):
            path.rename(into / f"{artifact.kind}-{path.name}")
            with suppress(BlockingIOError), self.making(path, blocking=False):
                self._lock(path).unlink()

    def _paths(self, artifact: Artifact) -> list[Path]:
        path = self.root / artifact.kind / plain_digest(artifact.digest)
        paths = [path.with_suffix(suffix) for suffix in LAYER_SUFFIXES] if artifact.kind is Kind.LAYER else [path]
        return [path for path in paths if path.exists()]

    def sweep_staging(self) -> None:
        """Deletes what crashed builds left behind; new ones have to wait for renames only."""
        with self.stage() as trash, locked(self.root / "staging.lock", exclusive=True):
            for path in self.root.glob("staging/*"):
                # Its owner may delete it while we look, which mkdir(exist_ok=True) tells as FileExistsError.
                with (
                    suppress(BlockingIOError, FileNotFoundError, FileExistsError),
                    locked(path / ".lock", exclusive=True, blocking=False),
                ):
                    path.rename(trash / path.name)


def _allocated(path: Path) -> int:
    """Bytes that a file, or a directory with all in it, takes up; what somebody deletes meanwhile counts nothing."""
    try:
        own = path.lstat().st_blocks * 512
        return own + sum(map(_allocated, path.iterdir())) if path.is_dir() else own
    except FileNotFoundError:
        return 0


def sync(path: Path) -> None:
    """Flushes a file, or a directory tree with every file in it, to the disk."""
    for entry in [path, *path.rglob("*")]:
        if entry.is_dir():
            sync_directory(entry)
        elif entry.is_file():
            handle = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(handle)
            finally:
                os.close(handle)


def sync_directory(path: Path) -> None:
    """Flushes a directory's entries, so that a rename in it is durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
