"""What host and guest say to each other (docs/guest.md).

The guest writes each event twice: to a file, durably, and to the control socket. The file is what is read; bytes on
the socket are only the bell that something was added to it. So a service that comes back reads on where nothing was
lost, and there is one parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO

from uhm_machines.files import connect_unix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uhm_machines.machine import Workload

__all__ = ["EventLog", "GuestChannel", "GuestEvent", "Verb", "encode_check", "encode_restore", "encode_run"]

_CONNECT_POLL_SECONDS = 0.05
_MAX_UPTIME_SECONDS = 1e8
_READ_BYTES = 64 * 1024
_ENTROPY_BYTES = 32
_EVENT = re.compile(rb"(\d{1,9}(?:\.\d{1,9})?) ([a-z_]{1,32})(?: (.{0,1000}).*)?", re.DOTALL)


class Verb(StrEnum):
    """What the host can ask of the guest."""

    RUN = "run"
    SIGNAL = "signal"
    STOP = "stop"
    CHECK = "check"
    FREEZE = "freeze"
    REHEARSE = "rehearse"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """One event; `time` is in seconds since the guest's boot."""

    time: float
    name: str
    argument: str = ""


def encode_run(workload: Workload, *, machine_id: str, reseed: bool = False) -> bytes:
    """The payload of `run`, with the host's clock as it is now, and fresh randomness for a guest that was restored."""
    return _encode(
        *(("arg", word) for word in workload.argv),
        *(("env", variable) for variable in workload.env),
        *(("port", str(port)) for port in workload.watched_ports),
        ("cwd", workload.working_dir),
        ("user", workload.user),
        *_identity(workload.hostname, machine_id),
        *(_entropy() if reseed else ()),
    )


def encode_restore(*, hostname: str, machine_id: str) -> bytes:
    """The payload of `restore` and of `rehearse`, with the host's clock as it is now and fresh randomness."""
    return _encode(*_identity(hostname, machine_id), *_entropy())


def encode_check(command: Sequence[str], *, timeout_ms: int) -> bytes:
    """The payload of `check`."""
    return _encode(*(("arg", word) for word in command), ("timeout", str(timeout_ms)))


def _identity(hostname: str, machine_id: str) -> list[tuple[str, str]]:
    return [("hostname", hostname), ("machine-id", machine_id), ("time", str(time.time_ns()))]


def _entropy() -> list[tuple[str, str]]:
    return [("entropy", secrets.token_hex(_ENTROPY_BYTES))]


def _encode(*pairs: tuple[str, str]) -> bytes:
    return b"".join(f"{key}\0{value}\0".encode() for key, value in pairs if value or key == "arg")


def parse_event(line: bytes) -> GuestEvent | None:
    """One line of events without its newline; None where it is not one.

    Root in a guest can write what it likes here: times are bounded, arguments are short and printable.
    """
    match = _EVENT.fullmatch(line)
    if match is None or (moment := float(match[1])) > _MAX_UPTIME_SECONDS:
        return None
    argument = (match[3] or b"").decode(errors="replace")
    return GuestEvent(moment, match[2].decode(), "".join(char if char.isprintable() else " " for char in argument))


class EventLog:
    """The events file, read from the start of the machine on, each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.behind = False
        """Whether there may be more than the last call has read."""
        self._offset = 0
        self._last = 0.0

    def wall_clock_ns(self, event: GuestEvent) -> int:
        """When an event that was read happened, in nanoseconds since 1970: the last one when the file was written."""
        try:
            written_ns = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            written_ns = time.time_ns()
        return written_ns - round((self._last - event.time) * 1e9)

    def read_new(self) -> list[GuestEvent]:
        """What was added since the last call, as far as it fits into some kilobytes; see `behind`.

        An incomplete line waits for its end; one that is no event, or very long, is skipped.
        """
        try:
            with self._path.open("rb") as file:
                self._offset = _next_data(file, self._offset)
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            data = b""
        self.behind = len(data) == _READ_BYTES
        lines, newline, _ = data.rpartition(b"\n")
        self._offset += len(lines) + len(newline) or (len(data) if self.behind else 0)
        events = [event for line in lines.splitlines() if (event := parse_event(line)) is not None]
        if events:
            self._last = events[-1].time
        return events

    def read_rest(self) -> list[GuestEvent]:
        """All that was added since the last call."""
        events = self.read_new()
        while self.behind:
            events += self.read_new()
        return events


def _next_data(file: BinaryIO, offset: int) -> int:
    """Where the next byte is that was not punched out (uhm_machines.logfiles)."""
    try:
        return os.lseek(file.fileno(), offset, os.SEEK_DATA)
    except OSError:  # there is no more
        return offset


class GuestChannel:
    """The host's end of the control socket. It is connected to whenever something is to be sent or heard."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        """Connects, where it is not. Raises OSError where nothing listens."""
        async with self._connecting:  # QEMU serves one connection; a second would wait for the first to close
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_unix_connection(sock=connect_unix(self._path))

    async def send(self, verb: Verb, payload: bytes = b"") -> None:
        """Hands over one message; the guest need not read it at once, nor ever. Raises OSError where QEMU is gone."""
        await self.connect()
        assert self._writer is not None
        self._writer.write(f"{verb} {len(payload)}\n".encode() + payload)

    async def bell(self) -> None:
        """Returns when the guest has written something, or, once QEMU is gone, after a moment."""
        with contextlib.suppress(OSError):
            await self.connect()
            assert self._reader is not None
            if await self._reader.read(65536):
                return
        self.close()
        await asyncio.sleep(_CONNECT_POLL_SECONDS)

    def close(self) -> None:
        """Closes the socket; QEMU goes on listening on its end."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
