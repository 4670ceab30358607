"""Streams over WebSocket (RFC 6455), for clients that cannot stream both ways through HTTP, as browsers cannot.

A streaming method answers a WebSocket at its path, whatever HTTP method its binding has. Each text frame of the client
is one message, as a JSON value in the binding's `body`; an empty one says that there are no more. A method that takes
one message takes the first frame where its binding has a body, and none else. Each frame of the server is
`{"result":…}`, as a line of its stream would be; google.api.HttpBody is binary frames both ways. The server closes with
1000 after the last message; after an error with 4000 + its HTTP status, the frame before it being `{"error":…}`.

A token comes as `Authorization`, or, because browsers can set no headers here, as the subprotocols `bearer, TOKEN`.
Browsers let any page open a WebSocket: one of a foreign origin is refused unless CORS allows that origin.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from uhm_common.errors import InvalidArgument, PermissionDenied, UhmError
from uhm_gateway.http.exchange import ClientDisconnectedError, Request
from uhm_gateway.http.status import failure_of_call, failure_of_error
from uhm_gateway.mapping.render import JSON, to_json
from uhm_gateway.rest.inbound import Inbound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message
    from starlette.types import Message as Event
    from starlette.types import Receive, Scope, Send

    from uhm_common.callers.calls import Call
    from uhm_gateway.http.metadata import Headers
    from uhm_gateway.http.status import Failure
    from uhm_gateway.rest.endpoint import Endpoint

__all__ = ["Conversation", "Socket", "WebSocketProtocol", "check_origin"]

BEARER = "bearer"
NORMAL, GOING_AWAY, UNSUPPORTED = 1000, 1001, 1003
OWN_CODES = 4000


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which takes a handshake that was refused with an answer of ours for one that was forgotten.

    `on_lost` is called when its connection is over.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.on_lost: Callable[[], None] = lambda: None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.on_lost()

    async def send(self, message: Any) -> None:
        """Sends an event of the application's."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


class UnsupportedFrame(InvalidArgument):
    """A binary frame where JSON is taken."""


class Socket(Request):
    """A WebSocket as it is asked for, and what goes through it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope)
        self._receive = receive
        self._send = send
        self.accepted = False
        offered: list[str] = scope.get("subprotocols", [])
        self._subprotocol = BEARER if len(offered) == 2 and offered[0].lower() == BEARER else None
        if self._subprotocol and not self.header(b"authorization"):
            self.headers = [*self.headers, (b"authorization", f"Bearer {offered[1]}".encode("latin-1"))]
            self._first[b"authorization"] = self.headers[-1][1]

    async def accept(self, headers: Headers) -> None:
        """Completes the handshake."""
        self.accepted = True
        await self._receive()  # websocket.connect, which comes first and only once
        await self._send({"type": "websocket.accept", "subprotocol": self._subprotocol, "headers": headers})

    async def refuse(self, failure: Failure, *, body: bytes, headers: Headers) -> None:
        """Answers the handshake with an error."""
        head = [(b"content-type", JSON), (b"content-length", str(len(body)).encode()), *failure.headers, *headers]
        await self._send({"type": "websocket.http.response.start", "status": failure.http_status, "headers": head})
        await self._send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def frames(self, *, binary: bool) -> AsyncIterator[bytes]:
        """What the client sends, up to an empty frame.

        Raises ClientDisconnectedError where it closes before that, and UnsupportedFrame for a binary frame unless
        `binary`.
        """
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise ClientDisconnectedError
            text: str | None = event.get("text")
            if text is None and not binary:
                raise UnsupportedFrame("A binary frame is not taken here.", hint="Send JSON in text frames.")
            content = event.get("bytes") or b"" if text is None else text.encode()
            if not content:
                return
            yield content

    async def disconnected(self) -> None:
        """Returns when the client has gone; what else it sends is dropped."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def send(self, content: bytes, *, binary: bool) -> None:
        """Sends a frame; waits while the client does not read. Raises ClientDisconnectedError."""
        frame: Event = {"bytes": content} if binary else {"text": content.decode()}
        await self._send_event({"type": "websocket.send", **frame})

    async def close(self, code: int, reason: str = "") -> None:
        """Says good-bye. Raises ClientDisconnectedError."""
        await self._send_event({"type": "websocket.close", "code": code, "reason": reason})

    async def _send_event(self, event: Event) -> None:
        try:
            await self._send(event)
        except OSError as error:  # ASGI: what send raises when the client has gone
            raise ClientDisconnectedError from error


class Conversation:
    """A call that goes through a socket."""

    def __init__(self, endpoint: Endpoint, socket: Socket, *, pool: DescriptorPool) -> None:
        self._endpoint = endpoint
        self._socket = socket
        self._pool = pool

    async def hold(self, *, captured: Sequence[str], caller: Call, headers: Headers) -> int:
        """Holds it from the handshake to the end; answers the code that it was closed with.

        Raises UhmError where the handshake is to be refused, and ClientDisconnectedError.
        """
        endpoint, socket = self._endpoint, self._socket
        takes_frames = endpoint.method.client_streaming or endpoint.binder.takes_body
        message = None if takes_frames else endpoint.binder.bind(captured=captured, query=socket.query)
        await socket.accept(headers)
        try:
            if takes_frames and not endpoint.method.client_streaming:
                message = await self._only_message(captured)
            await self._talk(message, captured=captured, caller=caller)
        except UhmError as error:
            code = UNSUPPORTED if isinstance(error, UnsupportedFrame) else None
            code = GOING_AWAY if endpoint.open_calls.ending else code
            return await self._fail(failure_of_error(error), code=code)
        except grpc.aio.AioRpcError as error:
            return await self._fail(failure_of_call(error))
        await socket.close(NORMAL)
        return NORMAL

    async def _talk(self, message: Message | None, *, captured: Sequence[str], caller: Call) -> None:
        endpoint = self._endpoint
        call = endpoint.start(self._socket, message, caller=caller)
        messages = self._messages(captured) if message is None else None
        inbound = Inbound(self._socket, call, messages, unwatched=endpoint.open_calls.unwatched)
        endpoint.open_calls.streams.add(call)
        try:
            async with inbound:
                if endpoint.method.server_streaming:
                    async for answer in call:
                        await self._tell(answer)
                else:
                    await self._tell(await call)
        except asyncio.CancelledError:
            raise endpoint.why_cancelled(inbound) from None
        except grpc.aio.AioRpcError as error:
            raise endpoint.upstream.explained(await inbound.outcome.settled(error)) from error
        finally:
            endpoint.open_calls.streams.discard(call)

    async def _tell(self, answer: Message) -> None:
        body = self._endpoint.renderer.render(answer).body
        is_raw = self._endpoint.renderer.is_raw
        await self._socket.send(body if is_raw else b'{"result":' + body + b"}", binary=is_raw)

    async def _only_message(self, captured: Sequence[str]) -> Message:
        is_raw = self._endpoint.binder.raw_body_field is not None
        async for content in self._socket.frames(binary=is_raw):
            return self._bound(content, captured=captured, is_raw=is_raw)
        return self._bound(b"", captured=captured, is_raw=is_raw)

    def _bound(self, content: bytes, *, captured: Sequence[str], is_raw: bool) -> Message:
        binder, query = self._endpoint.binder, self._socket.query
        if not is_raw:
            return binder.bind(captured=captured, query=query, body=content)
        return binder.bind_raw(binder.bind(captured=captured, query=query), content_type="", data=content)

    async def _messages(self, captured: Sequence[str]) -> AsyncIterator[Message]:
        endpoint, socket = self._endpoint, self._socket
        if endpoint.binder.raw_body_field is not None:
            async for message in endpoint.raw_messages(socket, socket.frames(binary=True), captured=captured):
                yield message
        else:
            async for content in socket.frames(binary=False):
                yield endpoint.binder.bind(captured=captured, query=socket.query, body=content)

    async def _fail(self, failure: Failure, *, code: int | None = None) -> int:
        code = code or OWN_CODES + failure.http_status
        await self._socket.send(to_json({"error": failure.to_json(self._pool)}), binary=False)
        await self._socket.close(code, failure.code.name)
        return code


def check_origin(request: Request, *, allowed: Collection[str]) -> None:
    """Raises PermissionDenied where a browser's page of another origin asks, unless `allowed` has it, or `*`.

    Only hosts and ports are compared: whether the page came through TLS, a proxy that ended it knows, and not this.
    """
    origin = request.header(b"origin")
    if not origin or origin in allowed or "*" in allowed or _host_of(origin) == request.header(b"host").lower():
        return
    raise PermissionDenied(f"Pages of {origin} may not open WebSockets here.", hint="Allow it as a CORS origin.")


def _host_of(origin: str) -> str | None:
    """The host and port in an origin, where it is one of a page (RFC 6454, section 7); `null` has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
