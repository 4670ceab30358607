"""One HTTP request and its answer, over the bare ASGI interface (https://asgi.readthedocs.io, HTTP specification).

Starlette's Request and Response are made for pages; the API's path needs a body that is read under a limit, whole or in
pieces, and to hear of a client that has gone while an upstream works.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING

from uhm_gateway.errors import BadRequest, BodyTooLarge, BodyTooSlow
from uhm_gateway.http.compress import gunzipped, gzipped, shrinks, wants_gzip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.types import Receive, Scope, Send

    from uhm_gateway.http.metadata import Headers

__all__ = ["ClientDisconnectedError", "Exchange", "Request", "falls_behind"]

# Of a body that is held in memory, or whose length is known; other streams may be as slow as they like.
LEAST_BYTES_PER_SECOND = 512
# What is read and dropped of a body that nobody wants, so that the client reads our answer instead of a reset
# connection.
DRAINED_BYTES = 64 * 1024 * 1024
DRAIN_SECONDS = 3.0


class ClientDisconnectedError(Exception):
    """The client closed the connection; nobody is left to answer."""


def falls_behind(taken: int, *, seconds: float, pause_seconds: float) -> bool:
    """Whether a body, of which `taken` bytes have come in all those seconds, trickles; it may pause so long."""
    return taken < (seconds - pause_seconds) * LEAST_BYTES_PER_SECOND


class Request:
    """What a request's head says, be it of an exchange or of a WebSocket."""

    def __init__(self, scope: Scope) -> None:
        self.headers: Headers = scope["headers"]
        self.raw_path: bytes = scope["raw_path"].partition(b"?")[0]
        self.raw_query: bytes = scope["query_string"]
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        self._first: dict[bytes, bytes] = dict(reversed(self.headers))

    @property
    def query(self) -> str:
        """The query, still encoded. Raises BadRequest where it is not UTF-8."""
        try:
            return self.raw_query.decode()
        except UnicodeDecodeError as error:
            raise BadRequest("The query is not UTF-8.") from error

    def header(self, name: bytes) -> str:
        """A header's first value, or nothing."""
        return self._first.get(name, b"").decode("latin-1")

    def values(self, name: bytes) -> list[str]:
        """All values of a header, in their order."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]


class Exchange(Request):
    """A request as it arrives and the response as it goes out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope)
        self.method: str = scope["method"]
        self._receive = receive
        self._send = send
        # RFC 9112, section 6.3: a request without either header has no body.
        self._body_ended = b"content-length" not in self._first and b"transfer-encoding" not in self._first
        self.status = 0
        self.response_headers: Headers = []
        # Answers hold tokens and states: nothing on the way is to keep them, unless a service says otherwise.
        self.cache_control = b"no-store"

    @property
    def started(self) -> bool:
        """Whether the response's head is out, so that its status can no longer change."""
        return self.status != 0

    def pieces(self, *, limit: int, pause_seconds: float = math.inf) -> AsyncIterator[bytes]:
        """The body's content as it arrives, unpacked; the connection is read no faster than this is.

        Raises BodyTooLarge, BodyTooSlow where it trickles after a pause of so many seconds, UnsupportedMediaType or
        BadRequest where its encoding is not gzip or broken, and ClientDisconnectedError where the client goes before
        the end.
        """
        received = self._received(limit=limit, pause_seconds=pause_seconds)
        encoding = self.header(b"content-encoding").strip().lower()
        if encoding in {"", "identity"}:
            return received
        return _bounded(gunzipped(received, encoding=encoding), limit=limit)

    async def body(self, *, limit: int, pause_seconds: float) -> bytes:
        """The whole body. Raises as `pieces` does."""
        if self._body_ended:
            return b""
        return b"".join([piece async for piece in self.pieces(limit=limit, pause_seconds=pause_seconds)])

    async def _received(self, *, limit: int, pause_seconds: float) -> AsyncIterator[bytes]:
        length = self.header(b"content-length")
        if length.isdecimal() and int(length) > limit:
            raise BodyTooLarge(limit)
        taken, started = 0, time.monotonic()
        while not self._body_ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._body_ended = True
                raise ClientDisconnectedError
            self._body_ended = not message.get("more_body", False)
            piece = message.get("body", b"")
            taken += len(piece)
            if taken > limit:
                raise BodyTooLarge(limit)
            if falls_behind(taken, seconds=time.monotonic() - started, pause_seconds=pause_seconds):
                raise BodyTooSlow("The request's body did not come in time.")
            if piece:
                yield piece

    async def disconnected(self) -> None:
        """Returns when the client has gone, or the response is complete; call it once the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends the response's head."""
        self.status = status
        head = [*headers, *self.response_headers, (b"cache-control", self.cache_control)]
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, body: bytes) -> None:
        """Sends a piece of the response at once; waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Sends the last piece of the response."""
        if not self._body_ended:
            await self.write(body)
            body = b""
            await self._drain()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def respond(
        self, status: int, *, content_type: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Sends a whole response, compressed where that is worth it and the client takes it."""
        head = [(b"content-type", content_type), *headers]
        if shrinks(content_type, len(body)):
            head.append((b"vary", b"accept-encoding"))
            if wants_gzip(",".join(self.values(b"accept-encoding"))):
                head.append((b"content-encoding", b"gzip"))
                body = await gzipped(body)
        head.append((b"content-length", str(len(body)).encode()))
        if not self._body_ended:
            head.append((b"connection", b"close"))
        await self.start(status, head)
        await self.end(body)

    async def respond_empty(self, status: int, *, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends a response that has no body by its status."""
        await self.start(status, headers)
        await self.end()

    async def _drain(self) -> None:
        """Reads a bounded rest of the request's body and drops it."""
        left = DRAINED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._body_ended and left > 0:
                    message = await self._receive()
                    self._body_ended = not message.get("more_body", False)
                    left -= len(message.get("body", b""))


async def _bounded(pieces: AsyncIterator[bytes], *, limit: int) -> AsyncIterator[bytes]:
    taken = 0
    async for piece in pieces:
        taken += len(piece)
        if taken > limit:
            raise BodyTooLarge(limit)
        yield piece
