"""The log files of machines: reading them while they grow, and a bound on what is kept.

QEMU appends to them for as long as the machine runs, so they are neither renamed nor cut: the oldest part is punched
out of them (fallocate(2), FALLOC_FL_PUNCH_HOLE), which gives its space back and leaves every offset valid. What was
punched reads as zeros, and neither a frame nor a line begins with one.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Final

from uhm_common.process import run
from uhm_machines.output import HEADER, LogSource, decoder_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from uhm_machines.output import Decoder, LogEntry

__all__ = ["follow_log", "punch_oldest", "read_tail_text"]

_CHUNK_BYTES: Final = 256 * 1024
_TAIL_TEXT_BYTES: Final = 16 * 1024
_SHORTEST_POLL_SECONDS: Final = 0.005
_LONGEST_POLL_SECONDS: Final = 0.1
_PUNCH_SECONDS: Final = 10.0
_STAT_BLOCK_BYTES: Final = 512


async def follow_log(
    path: Path, source: LogSource, *, tail: int | None = None, until: Callable[[], bool] | None = None
) -> AsyncIterator[LogEntry]:
    """A log from its beginning, or its last `tail` lines; then what is added, until `until` says so (None: at once).

    It is read in pieces; nothing is kept in memory but the lines of a tail. A file that is not there is empty.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        decoder = decoder_of(source)
        entries = _read_rest(file, decoder) if tail is None else _read_tail(file, decoder, tail)
        pause = _SHORTEST_POLL_SECONDS
        while True:
            async for entry in entries:
                pause = _SHORTEST_POLL_SECONDS
                yield entry
            if until is None:
                return
            entries = _read_rest(file, decoder)
            if until():
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)
        async for entry in entries:
            yield entry


def read_tail_text(path: Path, *, lines: int) -> str:
    """The last lines of a text file that may be growing, out of its last few kilobytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_TEXT_BYTES))
            text = file.read().replace(b"\0", b"").decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.replace("\r", "").strip().splitlines()[-lines:])


def punch_oldest(path: Path, source: LogSource, *, keep: int) -> int:
    """Where a log takes more than `keep` bytes on the disk, frees its oldest part, down to half of that.

    It blocks. Cuts between two frames or lines; answers the bytes given back. Raises ProcessFailed where the file
    system cannot punch holes.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_blocks * _STAT_BLOCK_BYTES <= keep:
                return 0
            wanted = status.st_size - keep // 2
            end = _frame_start(file, wanted) if source is LogSource.OUTPUT else _line_start(file, wanted)
            run(["fallocate", "--punch-hole", "--offset", "0", "--length", str(end), path], timeout=_PUNCH_SECONDS)
            return (status.st_blocks - os.fstat(file.fileno()).st_blocks) * _STAT_BLOCK_BYTES
    except FileNotFoundError:
        return 0


async def _read_rest(file: BinaryIO, decoder: Decoder) -> AsyncIterator[LogEntry]:
    while data := await asyncio.to_thread(_read_chunk, file, decoder):
        for entry in decoder.feed(data):
            yield entry


async def _read_tail(file: BinaryIO, decoder: Decoder, lines: int) -> AsyncIterator[LogEntry]:
    """The last lines, whichever stream they are of: all is read, so many are kept."""
    kept: deque[LogEntry] = deque(maxlen=lines)
    line_is_open = False
    async for entry in _read_rest(file, decoder):
        for piece in entry.data.splitlines(keepends=True):
            if line_is_open and kept and kept[-1].stream == entry.stream:
                kept[-1] = replace(kept[-1], data=kept[-1].data + piece)
            else:
                kept.append(replace(entry, data=piece))
            line_is_open = not piece.endswith((b"\n", b"\r"))
    for entry in kept:
        yield entry


def _read_chunk(file: BinaryIO, decoder: Decoder) -> bytes:
    """The next bytes; holes are passed over."""
    here = file.tell()
    try:
        data_at = os.lseek(file.fileno(), here, os.SEEK_DATA)
    except OSError:  # there is no more
        data_at = here
    if data_at > here:
        decoder.reset()
    file.seek(data_at)
    return file.read(_CHUNK_BYTES)


def _frame_start(file: BinaryIO, wanted: int) -> int:
    """Where the first frame begins that is not before `wanted`; goes through the headers from the first one on."""
    at = os.lseek(file.fileno(), 0, os.SEEK_DATA)
    file.seek(at)
    block = file.read(_CHUNK_BYTES)
    at += len(block) - len(block.lstrip(b"\0"))
    while at < wanted:
        file.seek(at)
        header = file.read(HEADER.size)
        if len(header) < HEADER.size:
            break
        at += HEADER.size + int(HEADER.unpack(header)[1])
    return at


def _line_start(file: BinaryIO, wanted: int) -> int:
    """Where the first line begins that is not before `wanted`, if it is not too long; else there."""
    file.seek(wanted)
    return wanted + file.read(_CHUNK_BYTES).find(b"\n") + 1
