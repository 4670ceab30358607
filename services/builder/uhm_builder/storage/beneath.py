"""Files below a directory, reached without following a symbolic link: whoever can write there cannot lead us out.

Each step is opened relative to the one before with O_NOFOLLOW. Only the directory itself, which the operator of this
system has named, may be reached through links.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Beneath"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Beneath:
    """A directory below another. Its methods block and raise OSError; paths are relative, without `..`."""

    def __init__(self, top: Path, inside: str) -> None:
        """`top` may be anywhere; `inside` is a path below it, made when something is put there."""
        self._top = top
        self._inside = inside

    @contextmanager
    def directory(self, path: str, *, create: bool = False) -> Iterator[int]:
        """A directory as a descriptor. Raises NotADirectoryError where a step is a link or no directory."""
        if create:
            self._top.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._top, DIRECTORY)
        try:
            for step in _steps(f"{self._inside}/{path}"):
                if create:
                    _make(handle, step)
                inner = os.open(step, DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def open(self, path: str) -> int:
        """A regular file for reading. Raises OSError where it is a link or anything else."""
        name = PurePosixPath(path)
        with self.directory(str(name.parent)) as directory:
            handle = os.open(name.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise IsADirectoryError(path)
        return handle

    def files(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Every regular file below a directory, by its path; nothing where there is no such directory."""
        try:
            with self.directory(path) as handle, os.scandir(handle) as entries:
                found = list(_found(entries))
        except FileNotFoundError:
            return
        for name, status in sorted(found, key=lambda entry: entry[0]):
            inner = str(PurePosixPath(path) / name)
            if stat.S_ISDIR(status.st_mode):
                yield from self.files(inner)
            elif stat.S_ISREG(status.st_mode):
                yield inner, status


def _found(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, os.stat_result]]:
    """What is still there when it is looked at."""
    for entry in entries:
        with suppress(FileNotFoundError):
            yield entry.name, entry.stat(follow_symlinks=False)


def _make(handle: int, step: str) -> None:
    try:
        os.mkdir(step, dir_fd=handle)
    except FileExistsError:
        return
    os.fsync(handle)


def _steps(path: str) -> list[str]:
    steps = [step for step in PurePosixPath(path).parts if step not in ("", ".", "/")]
    if ".." in steps:
        raise NotADirectoryError(path)
    return steps
