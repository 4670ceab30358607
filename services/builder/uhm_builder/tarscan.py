"""A guard in front of mkfs.erofs: reads along in a layer's archive and stops what would harm it, or be lost in it.

mkfs.erofs is a C program that reads what strangers have packed. By experiment (1.8.6), it crashes on some archives,
never ends on others, and silently leaves out entries that it does not know, or all that follows one whose size it reads
differently from everybody else. So only what it reads as docker does is let through, and the rest is refused by name:

- names and targets of hard links that leave the tree (`..`), that are empty, or longer than Linux takes. Absolute
  names and `./` are normal, and a symbolic link may point anywhere: only the guest follows it, inside of the machine;
- whiteouts of nothing, and an opaque root;
- entries of other kinds than files, links, devices, directories and FIFOs; sparse files; a size without content;
- extended headers that are larger than its buffer, are global, or change what follows in more than one way;
- numbers that do not end within their field, and file type bits in a mode that contradict the entry;
- more entries, or more bytes, than the bounds; an archive that ends too early, or has a lone block of zeros inside.

Content is skipped by arithmetic, so only headers cost: about two microseconds each. Nothing is kept per entry.
Where an archive lacks its end marker, as docker and tar(1) allow, `finish` answers the marker, which mkfs.erofs needs.

Format: POSIX.1-2001 pax (IEEE Std 1003.1, "ustar Interchange Format", "pax Header Block"), and GNU tar's `L` and `K`.
"""

from __future__ import annotations

import re
import stat
from typing import Final

from uhm_builder.errors import InvalidLayer, LayerTooLarge

__all__ = ["TarScanner"]

BLOCK: Final = 512
NAME_MAX: Final = 255
PATH_MAX: Final = 4095
EXTENDED_MAX: Final = 16_384
"""Bytes of an extended header: mkfs.erofs 1.8 garbles what does not fit its buffer."""
END = bytes(2 * BLOCK)
SHOWN_MAX = 100

_AGAIN = "Make the image again: docker and buildkit write no such layers."
_ORDINARY = re.compile(
    rb"(?:000[0-7]{4}|00[0-7]{4} )\0"  # mode, without type bits
    rb"(?:[0-7]{6}[0-7 ]\0){2}"  # owner and group
    rb"([0-7]{11})[\0 ][0-7]{11}[\0 ].{8}"  # size, modification time, checksum
    rb"([0-7]).{100}ustar(?:\x0000|  \0)",  # kind, target, magic and version
    re.DOTALL,
)
"""From the mode on: a header as today's tools write nearly all of them."""
_NUMBER = re.compile(rb" *([0-7]+)[ \0]")
_RECORD = re.compile(rb"([1-9][0-9]{0,4}) ")

_TYPE_BITS = {
    b"0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"1": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_FILES = (b"0", b"7")
_HARD_LINK, _LINKS, _DEVICES = b"1", (b"1", b"2"), (b"3", b"4")
_EXTENSIONS = (b"L", b"K", b"x", b"g")
_SPARSE = ("GNU.sparse.", "SCHILY.realsize")
_EFFECTIVE = ("path", "linkpath", "size", "uid", "gid", "mtime", "SCHILY.", "LIBARCHIVE.", *_SPARSE)
"""Beginnings of pax keywords that change an entry."""


class TarScanner:
    """Takes an archive in pieces of any size. Raises InvalidLayer and LayerTooLarge, before the piece is used."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        """`max_bytes` bounds the content of one entry; the caller bounds the whole."""
        self.entries = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._content = 0  # bytes of content and padding that are still to come
        self._held = bytearray()  # a block, or the blocks of an extended header, of which a part has come
        self._wanted = BLOCK
        self._extension: tuple[bytes, int] | None = None  # kind and size of the extended header that is coming
        self._next: dict[str, bytes] = {}  # what extended headers say of the next entry
        self._blank = False
        self._ended = False

    def feed(self, piece: bytes) -> None:
        """Takes the next piece."""
        at, end = 0, len(piece)
        while at < end and not self._ended:
            if self._content:
                step = min(self._content, end - at)
                self._content -= step
                at += step
            elif self._held or self._extension or end - at < BLOCK:
                taken = piece[at : at + self._wanted - len(self._held)]
                self._held += taken
                at += len(taken)
                if len(self._held) == self._wanted:
                    self._take_held()
            else:
                self._header(piece, at)
                at += BLOCK

    def finish(self) -> bytes:
        """Says that there is no more; answers what the archive lacks of its end marker."""
        if self._ended:
            return b""
        if self._content or self._held or self._extension or self._next:
            where = "a file" if self._content else "a header"
            raise InvalidLayer(
                f"A layer's archive ends in the middle of {where}.", hint="The image is damaged where it comes from."
            )
        self._ended = True
        return END[BLOCK:] if self._blank else END

    def _take_held(self) -> None:
        held = bytes(self._held)
        self._held.clear()
        self._wanted = BLOCK
        if self._extension:
            kind, size = self._extension
            self._extension = None
            self._extend(kind, held[:size])
        else:
            self._header(held, 0)

    def _header(self, piece: bytes, at: int) -> None:
        """Reads the header block at an offset."""
        if not piece[at]:
            self._blank_block(piece[at : at + BLOCK])
            return
        if self._blank:
            raise InvalidLayer("A layer's archive has a lone block of zeros inside.", hint=_AGAIN)
        if ordinary := _ORDINARY.match(piece, at + 100):
            size, kind = int(ordinary[1], 8), ordinary[2]
        else:
            size, kind = _unusual(piece[at : at + BLOCK])
        if kind in _EXTENSIONS:
            self._expect_extension(kind, size)
        else:
            self._entry(piece, at, kind=kind, size=size)

    def _blank_block(self, block: bytes) -> None:
        if self._next or any(block):
            raise InvalidLayer("A layer's archive has an entry without a name.", hint=_AGAIN)
        self._ended = self._blank
        self._blank = True

    def _expect_extension(self, kind: bytes, size: int) -> None:
        if not 0 < size <= (EXTENDED_MAX if kind in (b"x", b"g") else PATH_MAX + 1):
            raise InvalidLayer(
                f"A layer's archive has an extended header of {size} bytes; {EXTENDED_MAX} are the most, for a name "
                f"{PATH_MAX}.",
                hint="Shorten what is in it: names, targets of links or extended attributes.",
            )
        if self._next and (kind in (b"x", b"g") or self._next.keys() - {"path", "linkpath"}):
            raise InvalidLayer("A layer's archive has several extended headers for one entry.", hint=_AGAIN)
        self._extension = (kind, size)
        self._wanted = size + -size % BLOCK

    def _extend(self, kind: bytes, content: bytes) -> None:
        if kind in (b"L", b"K"):
            path, key = content.partition(b"\0")[0], "path" if kind == b"L" else "linkpath"
            if not path or key in self._next:
                raise InvalidLayer("A layer's archive has an extended header without a name, or twice.", hint=_AGAIN)
            self._next[key] = path
        elif kind == b"x":
            self._next = _records(content)
        elif effective := [key for key in _records(content) if key.startswith(_EFFECTIVE)]:
            raise InvalidLayer(f"A layer's archive sets {effective[0][:80]!r} for all of its entries.", hint=_AGAIN)

    def _entry(self, piece: bytes, at: int, *, kind: bytes, size: int) -> None:
        link = _text(piece, at + 157, 100) if kind in _LINKS else b""
        if self._next:
            name = self._next.get("path") or _name(piece, at)
            link = self._next.get("linkpath", link)
            size = int(self._next.get("size", size))
            self._next = {}
        else:
            name = _name(piece, at)
        self.entries += 1
        if self.entries > self._max_entries:
            raise LayerTooLarge(
                f"A layer has more than {self._max_entries} entries.", hint="UHM_MAX_LAYER_ENTRIES is the bound."
            )
        if len(name) > NAME_MAX or b".." in name or not name.strip(b"./"):
            _check_path(name, root=kind == b"5")
        if kind in _FILES:
            if size > self._max_bytes:
                raise _too_large(name, size)
            self._content = size + -size % BLOCK
        else:
            _check_without_content(piece, at, name=name, kind=kind, link=link, size=size)
        if b".wh." in name:
            _check_whiteout(name, size)


def _unusual(header: bytes) -> tuple[int, bytes]:
    """Size and kind of a header that is not as most are, where it is one that mkfs.erofs reads right."""
    name, kind = _text(header, 0, 100), header[156:157]
    if header[257:265] not in (b"ustar\x0000", b"ustar  \0", b"ustar\0\0\0"):
        if any(header[257:265]):
            raise InvalidLayer("A layer is not a tar archive, or is damaged.", hint=_AGAIN)
        raise _refused(name, "is written in the format of before 1988 (V7)")
    if kind not in _TYPE_BITS and kind not in _EXTENSIONS:
        shown = "a sparse file" if kind == b"S" else f"of the kind {kind!r}"
        raise _refused(name, f"is {shown}, which is not supported")
    fields = [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12)]
    mode, _, _, size, _ = (_number(header[at : at + length], name) for at, length in fields)
    type_bits = mode & ~0o7777
    if kind in _TYPE_BITS and type_bits not in (0, _TYPE_BITS[kind]):
        raise _refused(name, f"has the mode {mode:o}, which is that of something else")
    return size, kind


def _number(field: bytes, name: bytes) -> int:
    """A numeric field: octal digits that end within it, nothing at all, or GNU's base 256."""
    if field[0] == 0x80 and not any(field[1:-7]):
        return int.from_bytes(field[1:])
    if match := _NUMBER.match(field):
        return int(match[1], 8)
    if any(field):
        raise _refused(name, f"has the number {field!r} in its header, which is none")
    return 0


def _text(piece: bytes, at: int, length: int) -> bytes:
    """A text field: up to its first NUL, if there is one."""
    end = piece.find(b"\0", at, at + length)
    return piece[at : at + length if end < 0 else end]


def _name(piece: bytes, at: int) -> bytes:
    """A header's name, with its prefix; older GNU headers have something else in that place."""
    name = _text(piece, at, 100)
    if not piece[at + 345]:
        return name
    if piece[at + 262] == ord(" "):
        raise _refused(name, "has a header of GNU tar's incremental archives")
    return _text(piece, at + 345, 155) + b"/" + name


def _check_path(path: bytes, *, root: bool) -> None:
    """Refuses a path that leaves the tree, is too long for Linux, or is the root's, save as `root`."""
    parts = path.split(b"/")
    if len(path) > PATH_MAX or max(map(len, parts)) > NAME_MAX:
        raise _refused(path, f"has a path of more than {PATH_MAX} bytes, or a name in it of more than {NAME_MAX}")
    if b".." in parts:
        raise _refused(path, "leads out of the layer")
    if not path.strip(b"./") and not (root and b"." in parts):
        raise _refused(path, "has no name")


def _check_whiteout(path: bytes, size: int) -> None:
    """Refuses whiteouts that mkfs.erofs cannot make; see the OCI image specification, layer.md, "Whiteouts"."""
    parent, _, last = path.rstrip(b"/").rpartition(b"/")
    if not last.startswith(b".wh."):
        return
    if last == b".wh..wh..opq":
        if not parent.strip(b"./"):
            raise _refused(path, "hides everything in the layers below, which is not supported")
        if size:
            raise _refused(path, "has content, which a whiteout cannot have")
    elif last in (b".wh.", b".wh..", b".wh...") or last.startswith(b".wh..wh."):
        raise _refused(path, "is a whiteout of nothing")


def _check_without_content(piece: bytes, at: int, *, name: bytes, kind: bytes, link: bytes, size: int) -> None:
    """Refuses a link to nowhere, a device without numbers, and content where there is none."""
    if size:
        raise _refused(name, f"has {size} bytes of content, which only a file can have")
    if kind in _LINKS and not 0 < len(link) <= PATH_MAX:
        raise _refused(name, f"links to a path of {len(link)} bytes")
    if kind == _HARD_LINK:
        _check_path(link, root=False)
        if link.rpartition(b"/")[2].startswith(b".wh."):
            raise _refused(name, "is a hard link to a whiteout")
    elif kind in _DEVICES:
        for offset in (329, 337):
            if not _NUMBER.match(piece, at + offset, at + offset + 8):
                raise _refused(name, "is a device without a number")


def _records(content: bytes) -> dict[str, bytes]:
    """The records of a pax header: `LENGTH KEYWORD=VALUE\\n` each, LENGTH counting all of it."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(content):
        length = _RECORD.match(content, at)
        end = at + int(length[1]) if length else 0
        if length is None or not length.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise InvalidLayer("A layer's archive has an extended header that cannot be read.", hint=_AGAIN)
        key, equals, value = content[length.end() : end - 1].partition(b"=")
        _check_record(key, equals, value)
        records[key.decode(errors="replace")] = value
        at = end
    return records


def _check_record(key: bytes, equals: bytes, value: bytes) -> None:
    shown = key.decode(errors="replace")
    if shown.startswith(_SPARSE):
        raise InvalidLayer("A layer has a sparse file, which is not supported.", hint="Pack it without --sparse.")
    numeric = key == b"size" and not re.fullmatch(rb"[0-9]{1,18}", value)
    path = key in (b"path", b"linkpath") and (b"\0" in value or not value.strip(b"/"))
    if not key or not equals or numeric or path or (key.startswith(b"LIBARCHIVE.xattr.") and not value):
        raise InvalidLayer(
            f"A layer's archive has an extended header with {shown[:80]!r} that cannot be right.", hint=_AGAIN
        )


def _refused(path: bytes, why: str) -> InvalidLayer:
    return InvalidLayer(f"A layer has the entry {_shown(path)}, which {why}.", hint=_AGAIN)


def _too_large(path: bytes, size: int) -> LayerTooLarge:
    return LayerTooLarge(
        f"A layer has the entry {_shown(path)} of {size} bytes.", hint="UHM_MAX_LAYER_BYTES is the bound."
    )


def _shown(path: bytes) -> str:
    text = path.decode(errors="backslashreplace")
    return repr(text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…")
