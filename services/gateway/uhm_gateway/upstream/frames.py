"""HTTP/2 frames (RFC 9113, section 4) and header blocks (HPACK, RFC 7541), as much as a gRPC client needs.

This end announces a dynamic table of size 0 and uses none itself. A header block then means the same wherever it comes,
and what was decoded once is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from hpack.exceptions import HPACKDecodingError
from hpack.hpack import decode_integer
from hpack.table import HeaderTable

from uhm_gateway.upstream.huffman import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "MAX_PAYLOAD",
    "PING",
    "PREFACE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frame",
    "FrameError",
    "Headers",
    "Splitter",
    "decode_headers",
    "frame",
    "literal",
    "named",
    "string",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# Every peer takes frames of this size, and sends none larger to who has not asked for it.
MAX_PAYLOAD: Final = 16384
_HEAD_BYTES = 9
# Of what was decoded so much is kept: this many blocks, and texts in them, of so many bytes at most.
_KEPT, _KEPT_BYTES = 1024, 512

Headers = tuple[tuple[bytes, bytes], ...]


class FrameError(Exception):
    """What the peer sent is not HTTP/2, or not the part of it that was agreed on."""


class Frame(NamedTuple):
    """A frame as it came; padding and priority are gone from the payload, while `length` counts them."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    length: int


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream.to_bytes(4, "big"), payload)


class Splitter:
    """Cuts what a connection receives into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are now whole. Raises FrameError."""
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= _HEAD_BYTES:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > MAX_PAYLOAD:
                message = f"a frame of {length} bytes"
                raise FrameError(message)
            start = at + _HEAD_BYTES
            if start + length > len(data):
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : start], "big") & 0x7FFFFFFF
            payload = data[start : start + length]
            at = start + length
            if flags & (PADDED | PRIORITY) and kind in {DATA, HEADERS}:
                payload = _unpadded(kind, flags, payload)
            yield Frame(kind, flags, stream, payload, length)
        self._rest = data[at:]


def _unpadded(kind: int, flags: int, payload: bytes) -> bytes:
    end = len(payload)
    start = 0
    if flags & PADDED:
        if not payload:
            message = "a padded frame without its padding's length"
            raise FrameError(message)
        start, end = 1, end - payload[0]
    if flags & PRIORITY and kind == HEADERS:
        start += 5
    if start > end:
        message = "a frame of nothing but padding"
        raise FrameError(message)
    return payload[start:end]


def literal(name: bytes, value: bytes) -> bytes:
    """A header as a literal that no table keeps."""
    return b"\0" + string(name) + string(value)


def named(index: int, value: bytes) -> bytes:
    """A header that no table keeps, whose name has this place, up to 14, in the static table."""
    return b"%c%b" % (index, string(value))


def string(text: bytes) -> bytes:
    """A text behind its length, not packed."""
    length = len(text)
    if length < 127:
        return b"%c%b" % (length, text)
    length -= 127
    sizes = [127]
    while length >= 128:
        sizes.append(length & 127 | 128)
        length >>= 7
    return bytes((*sizes, length)) + text


def decode_headers(block: bytes) -> Headers:
    """The headers of a block. Raises FrameError."""
    return _kept_headers(block) if len(block) <= _KEPT_BYTES else _decoded(block)


def _decoded(block: bytes) -> Headers:
    try:
        return tuple(_headers(block))
    except (HPACKDecodingError, IndexError, ValueError) as error:
        message = f"a header block that cannot be decoded: {error}"
        raise FrameError(message) from error


_kept_headers = lru_cache(maxsize=_KEPT)(_decoded)


def _headers(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Section 6 of RFC 7541: an indexed field, a change of the table's size, or a literal with or without a name."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _integer(block, at, 0x7F, 7)
            yield HeaderTable.STATIC_TABLE[_static(index)]
            continue
        if first & 0xE0 == 0x20:
            size, at = _integer(block, at, 0x1F, 5)
            if size:
                message = f"a dynamic table of {size} bytes"
                raise ValueError(message)
            continue
        index, at = _integer(block, at, 0x3F, 6) if first & 0x40 else _integer(block, at, 0x0F, 4)
        if index:
            name = HeaderTable.STATIC_TABLE[_static(index)][0]
        else:
            name, at = _text(block, at)
        value, at = _text(block, at)
        yield name, value


def _integer(block: bytes, at: int, mask: int, bits: int) -> tuple[int, int]:
    """An integer that begins in the last bits of a byte, which hold most of them, and where what follows begins."""
    number = block[at] & mask
    if number != mask:
        return number, at + 1
    number, used = decode_integer(block[at:], bits)
    return number, at + used


def _static(index: int) -> int:
    """The place in the static table. Raises IndexError for entries of a dynamic table, which is empty."""
    if not index:
        raise IndexError(index)
    return index - 1


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    first = block[at]
    length, start = first & 0x7F, at + 1
    if length == 0x7F:
        length, start = _integer(block, at, 0x7F, 7)
    end = start + length
    if end > len(block):
        raise IndexError(end)
    text = block[start:end]
    if first & 0x80:
        text = _kept_text(text) if len(text) <= _KEPT_BYTES else unpacked(text)
    return text, end


_kept_text = lru_cache(maxsize=_KEPT)(unpacked)
