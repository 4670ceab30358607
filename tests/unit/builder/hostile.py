"""Archives that no layer should have, each with what is to be said of it; and odd ones that docker takes."""

from __future__ import annotations

import io
import tarfile

OCTAL_NONE = b"\0" * 8


def header(
    name: str | bytes,
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: bytes = b"0000644\0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    numbers: bytes = b"0000001\0",
    prefix: bytes = b"",
    damaged: bool = False,
) -> bytes:
    """One header block, with a checksum that is right unless it is to be damaged."""
    block = bytearray(512)
    name = name.encode() if isinstance(name, str) else name
    fields = {
        0: name,
        100: mode,
        108: b"0000000\0",
        116: b"0000000\0",
        124: size if isinstance(size, bytes) else b"%011o\0" % size,
        136: b"00000000000\0",
        148: b" " * 8,
        156: kind,
        157: link,
        257: magic,
        329: numbers if kind in b"34" else OCTAL_NONE,
        337: numbers if kind in b"34" else OCTAL_NONE,
        345: prefix,
    }
    for at, value in fields.items():
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % (sum(block) + damaged)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def packed(*blocks: bytes) -> bytes:
    return b"".join(blocks) + bytes(1024)


def file(name: str | bytes, content: bytes = b"content", **more) -> bytes:
    return header(name, size=len(content), **more) + padded(content)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """A pax header of records as they are."""
    content = b"".join(records)
    return header("pax", kind=kind, size=len(content)) + padded(content)


def EXTENSION(record: str | bytes) -> bytes:  # noqa: N802 - reads as what it makes
    """A pax header with one well-formed record."""
    record = record.encode() if isinstance(record, str) else record
    length = len(record) + 3
    while len(b"%d %b\n" % (length, record)) != length:
        length += 1
    return pax(b"%d %b\n" % (length, record))


def gnu(kind: bytes, text: bytes) -> bytes:
    return header("././@LongLink", kind=kind, size=len(text), magic=b"ustar  \0") + padded(text)


def sparse() -> bytes:
    return header("f", kind=b"S", size=512, magic=b"ustar  \0") + bytes(512)


DEEP = b"/".join([b"d"] * 10_000)

# None: the scanner has no memory of entries, so mkfs.erofs has to find out; see MEANINGS there.
HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "dot-dot": (packed(file("../escape")), "leads out of the layer"),
    "dot-dot inside": (packed(file("a/../../b")), "leads out of the layer"),
    "dot-dot in pax": (packed(EXTENSION("path=../../x"), file("x")), "leads out of the layer"),
    "dot-dot in a long name": (packed(gnu(b"L", b"../x\0"), file("x")), "leads out of the layer"),
    "hard link out": (packed(header("h", kind=b"1", link=b"../../etc/passwd")), "leads out of the layer"),
    "hard link to nothing": (packed(header("h", kind=b"1")), "links to a path of 0 bytes"),
    "hard link to the root": (packed(header("h", kind=b"1", link=b"/")), "has no name"),
    "hard link to what is missing": (packed(header("h", kind=b"1", link=b"nope")), None),
    "hard link to itself": (packed(header("h", kind=b"1", link=b"h")), None),
    "hard link to a directory": (packed(header("d", kind=b"5"), header("h", kind=b"1", link=b"d")), None),
    "hard link to a whiteout": (packed(header("h", kind=b"1", link=b"a/.wh.x")), "hard link to a whiteout"),
    "file through a symbolic link": (packed(header("s", kind=b"2", link=b"/etc"), file("s/passwd")), None),
    "file below a file": (packed(file("f"), file("f/x")), None),
    "symbolic link to nothing": (packed(header("s", kind=b"2")), "links to a path of 0 bytes"),
    "root by slashes": (packed(header("//", kind=b"5")), "has no name"),
    "root as a file": (packed(file("./")), "has no name"),
    "no name": (packed(header("")), "without a name"),
    "long name": (packed(gnu(b"L", b"n" * 256 + b"\0"), file("n")), "a name in it of more than 255"),
    "long path": (packed(gnu(b"L", DEEP), file("d")), "extended header of 19999 bytes"),
    "long target": (packed(gnu(b"K", b"x" * 5000), header("s", kind=b"2", link=b"x")), "extended header of 5000 bytes"),
    "endless long name": (packed(header("x", kind=b"L", size=7 << 30)), "extended header of 7516192768 bytes"),
    "endless pax header": (packed(header("x", kind=b"x", size=7 << 30)), "extended header of 7516192768 bytes"),
    "large extended attribute": (
        packed(EXTENSION("SCHILY.xattr.user.a=" + "v" * 70_000), file("f")),
        "extended header of",
    ),
    "long name twice": (packed(gnu(b"L", b"a\0"), gnu(b"L", b"b\0"), file("c")), "or twice"),
    "pax header twice": (packed(EXTENSION("path=a"), EXTENSION("path=b"), file("c")), "several extended headers"),
    "pax header at the end": (packed(EXTENSION("path=a")), "without a name"),
    "global path": (packed(pax(b"9 path=a\n", kind=b"g"), file("c")), "for all of its entries"),
    "empty path": (packed(pax(b"8 path=\n"), file("c")), "'path' that cannot be right"),
    "slashes for a path": (packed(EXTENSION("path=//"), file("c")), "'path' that cannot be right"),
    "NUL in a path": (packed(EXTENSION(b"path=a\0b"), file("c")), "'path' that cannot be right"),
    "negative size": (packed(EXTENSION("size=-5"), file("c")), "'size' that cannot be right"),
    "endless size": (packed(EXTENSION("size=9223372036854775807"), file("c")), "'size' that cannot be right"),
    "record without length": (packed(pax(b"path=abc\n"), file("c")), "cannot be read"),
    "record that is too long": (packed(pax(b"99999 path=abc\n"), file("c")), "cannot be read"),
    "record without end": (packed(pax(b"12 path=abcd"), file("c")), "cannot be read"),
    "record without value": (packed(pax(b"8 path\n\n"), file("c")), "cannot be right"),
    "sparse file of GNU tar": (packed(sparse()), "sparse file"),
    "sparse file in pax": (packed(EXTENSION("GNU.sparse.major=1"), file("f")), "sparse file"),
    "size beyond all bounds": (packed(header("f", size=b"77777777777\0")), "of 8589934591 bytes"),
    "size that is no number": (packed(header("f", size=b"zzzzzzzzzzz\0")), "which is none"),
    "size that runs on": (packed(header("f", size=b"777777777777")), "which is none"),
    "size of blanks": (packed(header("f", size=b" " * 12)), "which is none"),
    "size below zero": (packed(header("f", size=b"\xff" * 12)), "which is none"),
    "content of a directory": (packed(header("d", kind=b"5", size=7)), "which only a file can have"),
    "content of a hard link": (packed(file("f"), header("h", kind=b"1", link=b"f", size=7)), "which only a file can"),
    "content of an opaque whiteout": (packed(file("d/.wh..wh..opq")), "which a whiteout cannot have"),
    "mode of something else": (packed(file("f", mode=b"0120644\0")), "that of something else"),
    "device without a number": (packed(header("c", kind=b"3", numbers=OCTAL_NONE)), "device without a number"),
    "volume label": (packed(header("v", kind=b"V")), "of the kind b'V'"),
    "kind of nothing": (packed(header("v", kind=b"\xff")), "of the kind"),
    "format of 1979": (packed(file("f", kind=b"\0", magic=bytes(8))), "V7"),
    "whiteout of nothing": (packed(header(".wh.")), "whiteout of nothing"),
    "whiteout of the directory": (packed(header("a/.wh..")), "whiteout of nothing"),
    "whiteout of the parent": (packed(header("a/.wh...")), "whiteout of nothing"),
    "opaque root": (packed(header(".wh..wh..opq")), "hides everything in the layers below"),
    "prefix that is none": (packed(file("f", magic=b"ustar  \0", prefix=b"14717")), "incremental archives"),
    "wrong checksum": (packed(file("f", damaged=True)), None),
    "end in a file": (header("f", size=5000) + bytes(1024), "ends in the middle of a file"),
    "end in a header": (file("f") + header("g")[:100], "ends in the middle of a header"),
    "lone zero block": (file("f") + bytes(512) + packed(file("g")), "lone block of zeros"),
    "garbage": (b"not a tar" * 10_000, "not a tar archive"),
}


def _by_tarfile(archive_format: int) -> bytes:
    """What layers have: all kinds of entries, long names, extended attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=archive_format) as tar:
        for name, kind, link in [
            ("./", tarfile.DIRTYPE, ""),
            ("d", tarfile.DIRTYPE, ""),
            ("d/f", tarfile.REGTYPE, ""),
            ("/absolute/f", tarfile.REGTYPE, ""),
            ("h", tarfile.LNKTYPE, "/d/f"),
            ("s", tarfile.SYMTYPE, "../../../../etc/passwd"),
            ("h2", tarfile.LNKTYPE, "s"),
            ("l" * 90 + "/" + "m" * 90, tarfile.REGTYPE, ""),
            ("null", tarfile.CHRTYPE, ""),
            ("fifo", tarfile.FIFOTYPE, ""),
            ("d/.wh.gone", tarfile.REGTYPE, ""),
            ("d/.wh..wh..opq", tarfile.REGTYPE, ""),
            ("..d/...", tarfile.REGTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            if kind == tarfile.REGTYPE and ".wh." not in name:
                member.size = 3
            if archive_format == tarfile.PAX_FORMAT and name == "d/f":
                member.pax_headers = {"SCHILY.xattr.user.colour": "blue", "mtime": "1.5"}
            tar.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


ODD: dict[str, bytes] = {
    "ustar": _by_tarfile(tarfile.USTAR_FORMAT),
    "GNU": _by_tarfile(tarfile.GNU_FORMAT),
    "pax": _by_tarfile(tarfile.PAX_FORMAT),
    "global comment": packed(pax(b"15 comment=abc\n", kind=b"g"), file("f")),
    "type bits in the mode": packed(file("f", mode=b"0100644\0"), header("d", kind=b"5", mode=b"0040755\0")),
    "size in base 256": packed(header("f", size=b"\x80" + bytes(10) + b"\x07") + padded(b"content")),
    "size in pax": packed(EXTENSION("size=7"), header("f", size=0) + padded(b"content")),
    "contiguous file": packed(file("f", kind=b"7")),
    "twice the same": packed(file("f", b"one"), file("f", b"two!")),
    "a directory, then a file": packed(header("d", kind=b"5"), file("d")),
    "bytes that are no text": packed(file(b"\xff\xfe/\x80")),
    "name of 100 bytes": packed(file("n" * 100)),
}
