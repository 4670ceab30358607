"""The content-addressed store of layers, bases and disks, which the builder writes and the machines service reads.

    artifacts/
      builds.lock                   held shared by builds, exclusively by the sweep of layers
      disks.lock                    held shared while a disk is composed or leased, exclusively while one is deleted
      locks/                        one lock per artifact that is being made
      staging.lock                  held shared while a staging directory comes into being, exclusively by its sweep
      staging/<random>/             work in progress, locked by its owner; what nobody locks is a crash's leftover
      layers/<diffID hex>.erofs     one blob per container layer
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
from typing import TYPE_CHECKING

from uhm_common.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ArtifactStore", "locked", "plain_digest"]


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
    """Paths, staging, leases and the sweep."""

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
    def in_use(self) -> Iterator[None]:
        """Keeps the sweep of layers away for the time of a build."""
        with locked(self.root / "builds.lock", exclusive=False):
            yield

    @contextmanager
    def disks(self, *, exclusive: bool) -> Iterator[None]:
        """Shared: no disk is deleted meanwhile. Exclusive: none is composed or leased meanwhile. Hold it briefly."""
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
        with locked(self.root / "locks" / f"{final.parent.name}-{final.name}", exclusive=True, blocking=blocking):
            yield

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
        """Ids of the machines that use a disk."""
        leases = self.disk(disk_digest) / "leases"
        return sorted(path.name for path in leases.iterdir()) if leases.is_dir() else []

    def delete_disk(self, disk_digest: str) -> None:
        """Deletes a disk; the caller holds `disks(exclusive=True)`. Raises FailedPrecondition where it is in use."""
        if holders := self.lease_holders(disk_digest):
            raise FailedPrecondition(
                f"The image is used by {len(holders)} machine(s): {', '.join(holder[:12] for holder in holders)}.",
                hint="Delete them first with `uhm rm -f`.",
            )
        shutil.rmtree(self.disk(disk_digest), ignore_errors=True)

    @contextmanager
    def no_builds(self) -> Iterator[None]:
        """Keeps builds from beginning. Raises BlockingIOError while one runs."""
        with locked(self.root / "builds.lock", exclusive=True, blocking=False):
            yield

    def sweep_layers(self, *, keep: set[str]) -> int:
        """Deletes layers whose diffID is not in `keep`; answers the bytes freed. Does nothing while a build runs."""
        try:
            with self.no_builds():
                return self.delete_layers(keep=keep)
        except BlockingIOError:
            return 0

    def delete_layers(self, *, keep: set[str]) -> int:
        """What `sweep_layers` does, for a caller that holds `no_builds()` since before it found out what to keep."""
        freed = 0
        kept = {plain_digest(diff_id) for diff_id in keep}
        for blob in self.root.glob("layers/*.erofs"):
            if blob.stem not in kept:
                freed += blob.stat().st_blocks * 512
                blob.unlink()
                (self.root / "locks" / f"layers-{blob.name}").unlink(missing_ok=True)
        return freed

    def sweep_staging(self) -> None:
        """Deletes what crashed builds left behind."""
        with locked(self.root / "staging.lock", exclusive=True):
            for path in self.root.glob("staging/*"):
                # Its owner may delete it while we look, which mkdir(exist_ok=True) tells as FileExistsError.
                with (
                    suppress(BlockingIOError, FileNotFoundError, FileExistsError),
                    locked(path / ".lock", exclusive=True, blocking=False),
                ):
                    shutil.rmtree(path, ignore_errors=True)


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
