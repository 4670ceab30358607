"""A directory of this host as a storage location.

An object is written beside its name, flushed, read back from the disk and compared, and then renamed. What a crash
leaves half written is locked by nobody, and is deleted when the next object comes into the same directory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from uhm_builder.errors import (
    ContentMismatch,
    NotAtStorage,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnreachable,
)
from uhm_builder.pieces import PIECE
from uhm_builder.storage.objects import Stored, ignore
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from uhm_builder.storage.beneath import Beneath
    from uhm_builder.storage.content import Content
    from uhm_builder.storage.objects import Report, Resume

__all__ = ["DirectoryStore", "delete_files"]

STAGED = ".uhm-"
YOUNG_SECONDS = 60.0
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryStore:
    """An `ObjectStore` in a directory."""

    def __init__(self, root: Beneath) -> None:
        self._root = root

    async def put(self, name: str, content: Content, *, resume: Resume, report: Report = ignore) -> None:
        """Writes, verifies and renames; begins anew where it was interrupted."""
        del resume
        stop = threading.Event()
        await in_thread(partial(self._put, name, content, report, stop), interrupt=stop.set)

    async def get(self, name: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """Reads from the file as it is now, whatever becomes of its name meanwhile."""
        handle = await in_thread(partial(self._open, name))
        try:
            while length is None or length > 0:
                wanted = PIECE if length is None else min(PIECE, length)
                with _told(name):
                    piece = await in_thread(partial(os.pread, handle, wanted, offset))
                if not piece:
                    return
                offset += len(piece)
                length = None if length is None else length - len(piece)
                yield piece
        finally:
            os.close(handle)

    async def stat(self, name: str) -> Stored | None:
        """By what the file system says."""
        return await in_thread(partial(self._stat, name))

    async def listing(self, prefix: str) -> list[Stored]:
        """By walking."""
        return await in_thread(partial(self._list, prefix))

    async def delete(self, name: str) -> None:
        """Deletes the file; directories stay."""
        await in_thread(partial(self._delete, name))

    async def abandon(self, name: str, token: str) -> None:
        """Nothing is kept of an upload that broke off."""

    async def close(self) -> None:
        """There is no connection."""

    def _open(self, name: str) -> int:
        with _told(name):
            return self._root.open(name)

    def _stat(self, name: str) -> Stored | None:
        try:
            handle = self._open(name)
        except NotAtStorage:
            return None
        try:
            return _stored(name, os.fstat(handle))
        finally:
            os.close(handle)

    def _list(self, prefix: str) -> list[Stored]:
        with _told(prefix):
            files = self._root.files(prefix)
            return [_stored(name, status) for name, status in files if not PurePosixPath(name).name.startswith(STAGED)]

    def _delete(self, name: str) -> None:
        path = PurePosixPath(name)
        with _told(name), suppress(FileNotFoundError), self._root.directory(str(path.parent)) as directory:
            os.unlink(path.name, dir_fd=directory)
            os.fsync(directory)

    def _put(self, name: str, content: Content, report: Report, stop: threading.Event) -> None:
        path = PurePosixPath(name)
        with _told(name), self._root.directory(str(path.parent), create=True) as directory:
            if self._holds(name, content, stop):
                report(content.size)
                return
            _sweep(directory)
            with _staged(directory) as (staged, handle):
                done = 0
                for piece in content.pieces():
                    _check(stop)
                    _write(handle, piece)
                    done += len(piece)
                    report(done)
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is read from the disk
                if _digest(handle, stop) != content.digest:
                    raise ContentMismatch(f"The file system holds something else as {name} than was written.")
                os.rename(staged, path.name, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)

    def _holds(self, name: str, content: Content, stop: threading.Event) -> bool:
        try:
            handle = self._root.open(name)
        except FileNotFoundError:
            return False
        try:
            return os.fstat(handle).st_size == content.size and _digest(handle, stop) == content.digest
        finally:
            os.close(handle)


def delete_files(directory: Path, *, before: int) -> None:
    """Deletes what was written into a directory before that time, in nanoseconds since the epoch, and what gets empty.

    Symbolic links are not followed.
    """
    if not directory.is_dir():
        return
    for _, directories, files, handle in os.fwalk(directory, topdown=False):
        for name in files:
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=handle, follow_symlinks=False).st_mtime_ns < before:
                    os.unlink(name, dir_fd=handle)
        for name in directories:
            with suppress(OSError):  # it is not empty, or a link
                os.rmdir(name, dir_fd=handle)
    with suppress(OSError):
        directory.rmdir()


class _Stopped(Exception):
    """Whoever waited for this thread has been cancelled."""


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped


@contextmanager
def _staged(directory: int) -> Iterator[tuple[str, int]]:
    """A new file, locked for as long as it is written; gone in the end where it was not renamed."""
    name = f"{STAGED}{uuid.uuid4().hex}"
    handle = os.open(name, NEW_FILE, 0o666, dir_fd=directory)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield name, handle
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        os.close(handle)


def _sweep(directory: int) -> None:
    """Deletes what crashes have left half written. A new file may not be locked yet, so young ones are left alone."""
    latest = time.time() - YOUNG_SECONDS
    with os.scandir(directory) as entries:
        staged = [entry.name for entry in entries if entry.name.startswith(STAGED)]
    for name in staged:
        with suppress(FileNotFoundError, BlockingIOError):
            handle = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_mtime < latest:
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(handle)


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _digest(handle: int, stop: threading.Event) -> str:
    sha256 = hashlib.sha256()
    offset = 0
    while piece := os.pread(handle, PIECE, offset):
        _check(stop)
        sha256.update(piece)
        offset += len(piece)
    return f"sha256:{sha256.hexdigest()}"


def _stored(name: str, status: os.stat_result) -> Stored:
    return Stored(name=name, size=status.st_size, version=f"{status.st_mtime_ns:x}-{status.st_size:x}")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the kernel says, as what it means for a location."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotAtStorage(f"There is no {name} in the directory.") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"The directory's file system is full: {reason}.", hint="Make room there.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageDenied(
                f"{name} in the directory cannot be used: {reason}.",
                hint="The builder's user needs to read and write there.",
            ) from error
        if error.errno in (errno.EIO, errno.ESTALE, errno.EINTR):
            raise StorageUnreachable(f"{name} in the directory cannot be used: {reason}.") from error
        raise StorageRefused(
            f"{name} in the directory cannot be used: {reason}.",
            hint="Symbolic links in it are not followed.",
        ) from error
