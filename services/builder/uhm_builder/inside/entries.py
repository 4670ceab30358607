"""What is at a path of an image: values, and names as people see them.

Linux's names are bytes. Here they are text in which bytes that are no UTF-8 are lone surrogates (PEP 383), and `shown`
is what leaves the house: such bytes as `\\xNN`. No request can name such a file, so it is listed but not looked at.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Entry", "EntryKind", "entry_of", "is_utf8", "shown"]


class EntryKind(StrEnum):
    """As the API names them."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    BLOCK = "block"
    CHAR = "char"
    UNKNOWN = ""
    """Of what could not be looked at."""


KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFSOCK: EntryKind.SOCKET,
    stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFCHR: EntryKind.CHAR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A path, and what is there, symbolic links not followed. Times are none: layers have no times of their own."""

    path: str
    kind: EntryKind = EntryKind.UNKNOWN
    mode: int = 0
    """Permission bits."""
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""
    """Of a symbolic link."""

    @property
    def is_directory(self) -> bool:
        """Whether there can be something below."""
        return self.kind is EntryKind.DIRECTORY


def entry_of(path: str, status: dict[str, Any]) -> Entry:
    """From guestfs's `statns`; of what is not there it says inode -1."""
    if status["st_ino"] == -1:
        return Entry(path=path)
    return Entry(
        path=path,
        kind=KINDS.get(stat.S_IFMT(status["st_mode"]), EntryKind.UNKNOWN),
        mode=stat.S_IMODE(status["st_mode"]),
        uid=status["st_uid"],
        gid=status["st_gid"],
        size=status["st_size"],
    )


def is_utf8(name: str) -> bool:
    """Whether a name can be told to guestfs, and by a request."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def shown(name: str) -> str:
    """A name as text that any JSON can hold."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
