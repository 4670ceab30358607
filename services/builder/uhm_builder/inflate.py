"""Decompressing a layer as it arrives, piece by piece, in constant memory.

The kind is told by the first bytes, not by what a manifest claims: gzip (RFC 1952, any number of members), Zstandard
(RFC 8878, any number of frames), else the bytes are the archive itself. However well a piece compresses, no more than
PIECE bytes of its content exist at a time.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip_lib

from uhm_builder.errors import ContentMismatch
from uhm_builder.pieces import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable

    Sink = Callable[[bytes], None]

__all__ = ["GZIP_MAGIC", "ZSTD_MAGIC", "Inflater"]

GzipError = cast("type[Exception]", igzip_lib.error)  # what the library's types leave out
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_WINDOW_MAX = 128 << 20


class _Decoder(Protocol):
    def feed(self, data: bytes) -> None:
        """Takes compressed bytes."""

    def finish(self) -> None:
        """Says that there are no more. Raises ContentMismatch where something is missing."""


class Inflater:
    """Takes compressed bytes, gives uncompressed ones to a sink. Raises ContentMismatch for what is not well formed."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._decoder: _Decoder | None = None
        self._first = b""

    def feed(self, data: bytes) -> None:
        """Takes compressed bytes, as many as there are."""
        if self._decoder is None:
            data = self._first + data
            if len(data) < len(ZSTD_MAGIC):
                self._first = data
                return
            self._decoder = _decoder(data, self._sink)
        self._decoder.feed(data)

    def finish(self) -> None:
        """Says that there are no more."""
        if self._decoder is None:
            self._decoder = _Plain(self._sink)
            self._decoder.feed(self._first)
        self._decoder.finish()


def _decoder(first: bytes, sink: Sink) -> _Decoder:
    if first.startswith(GZIP_MAGIC):
        return _Gzip(sink)
    if first.startswith(ZSTD_MAGIC):
        return _Zstd(sink)
    return _Plain(sink)


class _Plain:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def feed(self, data: bytes) -> None:
        if data:
            self._sink(data)

    def finish(self) -> None:
        """Nothing can be missing."""


class _Gzip:
    """Members one after the other; zero bytes between and behind them are padding, as gzip(1) has it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._fresh = True

    def feed(self, data: bytes) -> None:
        if self._member.eof:
            data = data.lstrip(b"\0")
        while data or not (self._member.needs_input or self._member.eof):
            if self._member.eof:
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._fresh = False
            try:
                piece = self._member.decompress(data, max_length=PIECE)
            except GzipError as error:
                raise ContentMismatch(f"The layer is not valid gzip: {error}.") from error
            if piece:
                self._sink(piece)
            data = self._member.unused_data.lstrip(b"\0") if self._member.eof else b""

    def finish(self) -> None:
        if not self._member.eof and not self._fresh:
            raise ContentMismatch("The layer's gzip stream ends early.")


class _Zstd:
    def __init__(self, sink: Sink) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
        self._writer = decompressor.stream_writer(
            cast("IO[bytes]", _Writable(sink)), write_size=PIECE, write_return_read=True
        )

    def feed(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except zstandard.ZstdError as error:
            raise ContentMismatch(f"The layer is not valid Zstandard: {error}.") from error

    def finish(self) -> None:
        """A frame that ends early shows in the digest of the content: the library does not say."""


class _Writable:
    """A sink as a file object, which is what zstandard writes to."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink(data)
        return len(data)
