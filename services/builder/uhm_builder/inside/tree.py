"""The merged root of an image, in an appliance: what is at its paths, asked of the appliance's kernel.

The layers are mounted below the appliance's /sysroot and merged by overlayfs, as in a machine; the merged tree is then
mounted over /sysroot itself. That is where guestfs resolves paths, in a chroot: symbolic links of an image, whatever
they say, end inside of it. (guestfs's `mount_vfs` wants a device; overlayfs does not care which.) Everything is
read-only. The methods block.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from uhm_builder.appliance import ApplianceFailed, ApplianceLost
from uhm_builder.errors import DamagedImage, NoSuchFile, NotReadable, TooMuchInside
from uhm_builder.inside.entries import Entry, EntryKind, entry_of, is_utf8, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uhm_builder.appliance import Appliance

__all__ = ["PIECE", "Tree", "mount_layer", "mount_layers", "mount_merged"]

PIECE = 1 << 20
"""Most bytes of a file that one call answers; guestfs's messages have at most 4 MiB."""
LISTING_BYTES = 256 << 20
"""Most bytes of names that one call lists."""

_EMPTY = ("/empty", "/void")
"""Overlayfs wants two directories at least."""
_DEVICE = "/dev/sda"
_GONE = (errno.ENOENT, errno.ENOTDIR)


def mount_layers(appliance: Appliance, count: int) -> None:
    """Mounts the partitions of a `layers_drive` at /1, /2 and so on. Raises DamagedImage."""
    for point in _EMPTY:
        appliance.call("mkmountpoint", point)
    for number in range(1, count + 1):
        mount_layer(appliance, number)


def mount_layer(appliance: Appliance, number: int) -> None:
    """Mounts one of them. Raises DamagedImage."""
    appliance.call("mkmountpoint", f"/{number}")
    with _damage("A layer of the image cannot be mounted."):
        appliance.call("mount_vfs", "ro", "erofs", f"{_DEVICE}{number}", f"/{number}")


def mount_merged(appliance: Appliance, layers: Sequence[str], *, at: str = "/") -> None:
    """Merges mounted layers, the bottom one first, where they are a machine's root. Raises DamagedImage."""
    if at != "/":
        appliance.call("mkmountpoint", at)
    lower = ":".join(f"/sysroot{point}" for point in [*reversed(layers), *_EMPTY])
    with _damage("The layers of the image cannot be merged."):
        appliance.call("mount_vfs", f"ro,lowerdir={lower}", "overlay", _DEVICE, at)


class Tree:
    """A tree that is mounted at the root of an appliance. Paths are absolute; see `entries` for names."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance

    def allow(self, seconds: float) -> None:
        """Gives the calls from now on so much time in all."""
        self._appliance.allow(seconds)

    def resolve(self, path: str) -> str:
        """The path without symbolic links. Raises NoSuchFile, NotReadable."""
        with _errors_about(path):
            return str(self._appliance.call("realpath", path))

    def look(self, path: str, *, follow: bool = False) -> Entry:
        """What is at a path; at its end a symbolic link is followed on demand. Raises NoSuchFile, NotReadable."""
        with _errors_about(path):
            entry = entry_of(path, self._appliance.call("statns" if follow else "lstatns", path))
        return self._with_targets([entry])[0]

    def names(self, directory: str) -> Iterator[str]:
        """The names in a directory, in no order. Raises NoSuchFile, NotReadable, TooMuchInside."""
        return self._listing("ls0", directory)

    def below(self, directory: str) -> Iterator[str]:
        """Everything below a directory, as paths relative to it, in no order. Raises as `names` does."""
        root = self.resolve(directory)  # find0 itself does not stay in the chroot
        return (path.removeprefix("/") for path in self._listing("find0", root))  # below "/" they come without

    def look_at(self, directory: str, names: Sequence[str]) -> list[Entry]:
        """What these names in a directory are; `UNKNOWN` where that cannot be told."""
        known = [name for name in names if is_utf8(name)]
        with _errors_about(directory):
            statuses = self._appliance.call("lstatnslist", directory, known) if known else []
        at = dict(zip(known, statuses, strict=True))
        prefix = directory.rstrip("/")
        entries = [
            entry_of(f"{prefix}/{name}", at[name]) if name in at else Entry(path=f"{prefix}/{name}") for name in names
        ]
        return self._with_targets(entries)

    def look_below(self, directory: str, paths: Sequence[str]) -> list[Entry]:
        """What these paths below a directory are, asked for directory by directory; as `look_at`."""
        prefix = directory.rstrip("/")
        in_parent: dict[str, list[str]] = {}
        for path in paths:
            parent, _, name = f"{prefix}/{path}".rpartition("/")
            in_parent.setdefault(parent or "/", []).append(name)
        found = {entry.path: entry for parent, names in in_parent.items() for entry in self.look_at(parent, names)}
        return [found[f"{prefix}/{path}"] for path in paths]

    def read(self, path: str, *, offset: int = 0, count: int = PIECE) -> bytes:
        """Bytes of a regular file, at most PIECE; less only at its end. The caller has looked that it is one."""
        with _errors_about(path):
            return bytes(self._appliance.call("pread", path, min(count, PIECE), offset))

    def read_whole(self, path: str, *, limit: int) -> bytes:
        """A regular file, symbolic links followed. Raises NoSuchFile, NotReadable, TooMuchInside above `limit`."""
        entry = self.look(path, follow=True)
        if entry.kind is not EntryKind.FILE:
            raise NotReadable(f"{shown(path)} is not a file, but a {entry.kind or 'thing of unknown kind'}.")
        if entry.size > limit:
            raise TooMuchInside(f"{shown(path)} has {entry.size} bytes; {limit} are taken.")
        content = bytearray()
        while len(content) < entry.size and (piece := self.read(path, offset=len(content))):
            content += piece
        return bytes(content)

    def checksum(self, path: str) -> str:
        """The SHA-256 of a regular file."""
        with _errors_about(path):
            return str(self._appliance.call("checksum", "sha256", path))

    def attributes(self, path: str) -> dict[str, bytes]:
        """The extended attributes of what is at a path, without those that are overlayfs's own."""
        with _errors_about(path):
            found = self._appliance.call("lgetxattrs", path)
        return {
            each["attrname"]: each["attrval"] for each in found if not each["attrname"].startswith("trusted.overlay.")
        }

    def _listing(self, call: str, directory: str) -> Iterator[str]:
        output = self._appliance.directory / "listing"
        with _errors_about(directory):
            self._appliance.call(call, directory, str(output))
        with output.open("rb") as file:
            output.unlink()
            yield from _separated(file)

    def _with_targets(self, entries: list[Entry]) -> list[Entry]:
        """Entries of one directory with the targets of links; with none where one of them is no UTF-8."""
        links = [entry.path for entry in entries if entry.kind is EntryKind.SYMLINK]
        if not links:
            return entries
        directory = links[0].rpartition("/")[0] or "/"
        try:
            targets = self._appliance.call("readlinklist", directory, [link.rpartition("/")[2] for link in links])
        except ApplianceLost:
            raise
        except ApplianceFailed:
            return entries
        target_of = dict(zip(links, targets, strict=True))
        return [replace(entry, target=target_of.get(entry.path, "")) for entry in entries]


def _separated(file: IO[bytes]) -> Iterator[str]:
    """Names that end with NUL."""
    rest = b""
    while piece := file.read(PIECE):
        *names, rest = (rest + piece).split(b"\0")
        for name in names:
            yield name.decode(errors="surrogateescape")


@contextmanager
def _damage(message: str) -> Iterator[None]:
    """What cannot be mounted, as an error for the user."""
    try:
        yield
    except ApplianceLost:
        raise
    except ApplianceFailed as error:
        raise DamagedImage(message, hint="Its file system is damaged; make the image again.") from error


@contextmanager
def _errors_about(path: str) -> Iterator[None]:
    """What guestfs says of a path, as errors for the user: it has no more than the text of strerror(3)."""
    try:
        yield
    except ApplianceLost:
        raise
    except ApplianceFailed as error:
        said = error.message
        if any(said.endswith(os.strerror(number)) for number in _GONE):
            raise NoSuchFile(f"There is no {shown(path)} in the image.", hint="`uhm files` lists what is.") from error
        if said.endswith(os.strerror(errno.EFBIG)):
            raise TooMuchInside(f"{shown(path)} has more names than can be listed.", hint="List a part.") from error
        reason = said.rpartition(": ")[2]
        raise NotReadable(f"{shown(path)} cannot be read in the image: {reason}.") from error
