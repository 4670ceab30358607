"""A transport that sends what is written in one turn of the event loop in one piece.

uvicorn writes a response's head and its body apart, which costs a system call and a packet each.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Corked"]

MOST_BYTES = 64 * 1024  # more is sent at once, so that the transport's flow control sees it


class Corked:
    """What another transport is, but for when `write` and `close` do their work."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._bytes = 0
        self._written = 0

    @property
    def sent(self) -> int:
        """How many bytes the client's side of the connection has taken so far."""
        return self._written - int(self._transport.get_write_buffer_size())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends the data when this turn of the loop is over, or now where it is much."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._flush()

    def close(self) -> None:
        """Closes the transport once all has been sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._written += self._bytes
            self._bytes = 0
            self._transport.write(data)
