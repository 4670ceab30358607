"""The least that speaks HTTP/1.1, so that servers are measured and not a client library."""

from __future__ import annotations

import asyncio
import time

__all__ = ["HttpClient", "requests_per_second"]


class HttpClient(asyncio.Protocol):
    """One kept connection, on which one request follows the answer to the one before, for as long as `left` lasts."""

    def __init__(self, request: bytes, left: list[int]) -> None:
        self._request = request
        self._left = left
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        """Ends; too early where requests are left."""
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Takes an answer, and goes on once it is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        lowered = head.lower()
        length = lowered[lowered.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0]
        if len(body) < int(length):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(AssertionError(self._received.decode()))
            self._transport.close()
            return
        self._received = b""
        self._next()

    def _next(self) -> None:
        if self._left[0] > 0:
            self._left[0] -= 1
            self._transport.write(self._request)
        else:
            self.done.set_result(None)
            self._transport.close()


async def requests_per_second(port: int, request: bytes, *, count: int, connections: int) -> float:
    """How many are answered in a second, by so many connections at once."""
    loop = asyncio.get_running_loop()
    left = [count]
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: HttpClient(request, left), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    return count / (time.perf_counter() - started)
