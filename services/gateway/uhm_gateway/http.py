"""One HTTP request and its answer, over the bare ASGI interface (https://asgi.readthedocs.io, HTTP specification).

Starlette's Request and Response are made for pages; the API's path needs a body that is read under a limit, whole or in
pieces, and to hear of a client that has gone while an upstream works.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from uhm_gateway.errors import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.types import Receive, Scope, Send

__all__ = ["ClientDisconnectedError", "Exchange"]

# What is read and dropped of a body that nobody wants, so that the client reads our answer instead of a reset
# connection.
DRAINED_BYTES = 64 * 1024 * 1024
DRAIN_SECONDS = 3.0


class ClientDisconnectedError(Exception):
    """The client closed the connection; nobody is left to answer."""


class Exchange:
    """A request as it arrives and the response as it goes out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.raw_path: bytes = scope["raw_path"].partition(b"?")[0]
        self.raw_query: bytes = scope["query_string"]
        self._receive = receive
        self._send = send
        # RFC 9112, section 6.3: a request without either header has no body.
        self._body_ended = not any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)
        self._started = False
        self.response_headers: list[tuple[bytes, bytes]] = []

    @property
    def started(self) -> bool:
        """Whether the response's head is out, so that its status can no longer change."""
        return self._started

    def header(self, name: bytes) -> str:
        """A request header's first value, or nothing."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    async def pieces(self, *, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives; the connection is read no faster than this is.

        Raises BodyTooLarge, and ClientDisconnectedError where the client goes before the end.
        """
        length = self.header(b"content-length")
        if length.isdecimal() and int(length) > limit:
            raise BodyTooLarge(limit)
        taken = 0
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
            if piece:
                yield piece

    async def body(self, *, limit: int) -> bytes:
        """The whole body. Raises as `pieces` does."""
        return b"".join([piece async for piece in self.pieces(limit=limit)])

    async def disconnected(self) -> None:
        """Returns when the client has gone, or the response is complete; call it once the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends the response's head."""
        self._started = True
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *self.response_headers]}
        )

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
        """Sends a whole response."""
        unread = () if self._body_ended else ((b"connection", b"close"),)
        length = str(len(body)).encode()
        await self.start(status, [(b"content-type", content_type), (b"content-length", length), *headers, *unread])
        await self.end(body)

    async def _drain(self) -> None:
        """Reads a bounded rest of the request's body and drops it."""
        left = DRAINED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._body_ended and left > 0:
                    message = await self._receive()
                    self._body_ended = not message.get("more_body", False)
                    left -= len(message.get("body", b""))
