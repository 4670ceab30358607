"""What machines wrote, as entries: the frames of `uhm.output` (docs/guest.md), and the console as it is."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HEADER", "ConsoleDecoder", "Decoder", "FrameDecoder", "LogEntry", "LogSource", "decoder_of"]

HEADER: Final = struct.Struct(">B3xIQ")
"""Stream, length, time in ns; the data follow."""
_MAX_FRAME_BYTES: Final = 1 << 20
_STREAM_BYTE: Final = re.compile(rb"[\x01\x02]")


class LogSource(StrEnum):
    """Which of a machine's logs."""

    OUTPUT = "output"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A piece of a log; `stream` is "stdout", "stderr" or "console". The console has no times: `time_ns` is 0."""

    stream: str
    data: bytes
    time_ns: int = 0


class Decoder(Protocol):
    """Bytes of a log file, in pieces of any size, to entries."""

    def feed(self, data: bytes) -> Iterator[LogEntry]:
        """The entries that are complete with these bytes."""

    def reset(self) -> None:
        """The next bytes do not follow those fed last."""


class FrameDecoder:
    """Frames of `uhm.output`: stream (1 byte), 3 zero bytes, length (uint32), time (uint64, ns), big endian; data."""

    _STREAMS: Final = {1: "stdout", 2: "stderr"}

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[LogEntry]:
        """The frames that are complete with these bytes. Zeros in front of a frame are what was punched out."""
        buffer = self._rest + data
        at = 0
        while len(buffer) - at >= HEADER.size:
            stream, length, time_ns = HEADER.unpack_from(buffer, at)
            if stream not in self._STREAMS or length > _MAX_FRAME_BYTES:
                at = _next_start(buffer, at + 1)
                continue
            end = at + HEADER.size + length
            if end > len(buffer):
                break
            yield LogEntry(stream=self._STREAMS[stream], data=buffer[at + HEADER.size : end], time_ns=time_ns)
            at = end
        self._rest = buffer[at:]

    def reset(self) -> None:
        """Forgets an incomplete frame, whose end was punched out."""
        self._rest = b""


class ConsoleDecoder:
    """The console, as it comes."""

    def feed(self, data: bytes) -> Iterator[LogEntry]:
        """One entry; zeros are what was punched out."""
        if text := data.replace(b"\0", b""):
            yield LogEntry(stream="console", data=text)

    def reset(self) -> None:
        """Nothing is kept between pieces."""


def decoder_of(source: LogSource) -> Decoder:
    """A decoder for a log's file."""
    return FrameDecoder() if source is LogSource.OUTPUT else ConsoleDecoder()


def _next_start(buffer: bytes, at: int) -> int:
    """Where the next byte is that a frame may begin with."""
    found = _STREAM_BYTE.search(buffer, at)
    return found.start() if found else len(buffer)
