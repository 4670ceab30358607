"""A directory as a build context: a tar archive made while it is sent, without what `.dockerignore` leaves out.

The same directory gives the same bytes: entries are sorted, nobody owns them, times are whole seconds. A context that
is packed already comes through standard input, and is kept in a temporary file until it is sent.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Self

from uhm.errors import CommandError
from uhm.ignore import IgnoreRules, read_patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BuildContext", "PackedContext", "open_context", "packed_context"]

IGNORE_FILE = ".dockerignore"
DOCKERFILE = "Dockerfile"
CHUNK = 256 * 1024
BLOCK = tarfile.BLOCKSIZE
MAGICS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
TAR_MAGIC_AT, TAR_MAGIC = 257, b"ustar"


@dataclass(frozen=True, slots=True)
class BuildContext:
    """A directory, and what of it belongs to the context."""

    root: Path
    rules: IgnoreRules
    dockerfile: str

    def paths(self) -> Iterator[str]:
        """What is sent, relative and sorted; a directory comes before what is in it."""
        pending: list[str] = []
        for path, is_directory, is_excluded in self._walk(""):
            while pending and not path.startswith(f"{pending[-1]}/"):
                pending.pop()
            if is_excluded:
                # An excluded directory is sent only where something in it is.
                if is_directory:
                    pending.append(path)
                continue
            yield from pending
            pending.clear()
            yield path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def tar(self) -> Iterator[bytes]:
        """The archive in pieces. Raises CommandError for a file that cannot be read."""
        for path in self.paths():
            yield from self._entry(path)
        yield bytes(2 * BLOCK)

    def _walk(self, directory: str) -> Iterator[tuple[str, bool, bool]]:
        """Every path with whether it is a directory and whether it is excluded."""
        try:
            entries = sorted(os.scandir(self.root / directory), key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(self.root / directory, error) from error
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            is_excluded = self.rules.excludes(path)
            if is_excluded and (not is_directory or self.rules.excludes_below(path)):
                continue
            yield path, is_directory, is_excluded
            if is_directory:
                yield from self._walk(path)

    def _entry(self, path: str) -> Iterator[bytes]:
        """The header and the content of one path; sockets are left out, as docker does."""
        full = self.root / path
        try:
            status = full.lstat()
            if stat.S_ISSOCK(status.st_mode):
                return
            header = _header(path, full, status)
            if not header.isreg():
                yield _block(header)
                return
            with full.open("rb") as file:
                yield _block(header)
                yield from _content(file.read, header.size, full)
        except OSError as error:
            raise _unreadable(full, error) from error


class PackedContext:
    """An archive from standard input; a context manager, which closes it."""

    def __init__(self, file: IO[bytes], *, dockerfile: str) -> None:
        self._file = file
        self.dockerfile = dockerfile

    def tar(self) -> Iterator[bytes]:
        """The archive in pieces, from its beginning each time."""
        self._file.seek(0)
        while piece := self._file.read(CHUNK):
            yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def packed_context(source: IO[bytes], *, dockerfile: str = "") -> PackedContext:
    """The context in an archive. Raises CommandError for what is no tar archive, plain, gzip, bzip2 or xz."""
    path = PurePosixPath(dockerfile or DOCKERFILE)
    if path.is_absolute() or ".." in path.parts:
        raise CommandError(f"{dockerfile} is outside the archive.", hint="The Dockerfile must be in the context.")
    first = source.read(BLOCK) if not source.isatty() else b""
    if not first.startswith(MAGICS) and not first[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        raise CommandError("Standard input is no tar archive.", hint="Pack the context: tar -c . | uhm build -t NAME -")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the context closes it
    file.write(first)
    shutil.copyfileobj(source, file, CHUNK)
    return PackedContext(file, dockerfile=str(path))


def open_context(root: Path, *, dockerfile: str = "") -> BuildContext:
    """The context of a directory. Raises CommandError where the Dockerfile is not in it."""
    path = _inside(root, dockerfile) if dockerfile else DOCKERFILE
    if not (root / path).is_file():
        raise CommandError(f"There is no {path} in {root}.", hint="Name another with -f.")
    own = root / f"{path}{IGNORE_FILE}"
    ignore = own if own.is_file() else root / IGNORE_FILE
    patterns = read_patterns(ignore.read_text()) if ignore.is_file() else []
    return BuildContext(root, IgnoreRules(patterns).keeping([path, IGNORE_FILE]), path)


def _inside(root: Path, dockerfile: str) -> str:
    """The Dockerfile's path in the context: as docker does, first relative to here, then to the context."""
    given = Path(dockerfile)
    for candidate in (given, root / given):
        if candidate.is_file() and candidate.resolve().is_relative_to(root.resolve()):
            return candidate.resolve().relative_to(root.resolve()).as_posix()
    if given.is_file():
        raise CommandError(f"{dockerfile} is outside {root}.", hint="The Dockerfile must be in the context.")
    return given.as_posix()


def _header(path: str, full: Path, status: os.stat_result) -> tarfile.TarInfo:
    mode = status.st_mode
    header = tarfile.TarInfo(path)
    header.mode = stat.S_IMODE(mode)
    header.mtime = int(status.st_mtime)
    if stat.S_ISREG(mode):
        header.size = status.st_size
    elif stat.S_ISDIR(mode):
        header.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        header.type = tarfile.SYMTYPE
        header.linkname = str(full.readlink())
    elif stat.S_ISFIFO(mode):
        header.type = tarfile.FIFOTYPE
    else:
        header.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return header


def _block(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


def _content(read: Callable[[int], bytes], size: int, full: Path) -> Iterator[bytes]:
    """Exactly as many bytes as the header says, padded to whole blocks. Raises CommandError where the file shrinks."""
    left = size
    while left:
        piece = read(min(left, CHUNK))
        if not piece:
            raise CommandError(f"{full} became shorter while it was sent.", hint="Try again.")
        left -= len(piece)
        yield piece
    yield bytes(-size % BLOCK)


def _unreadable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be read: {error.strerror}.", hint="Leave it out with .dockerignore, or fix it.")
