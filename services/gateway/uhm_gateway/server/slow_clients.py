"""Clients that are slow, or want too much at once: what uvicorn's HTTP protocol has no settings for.

One watch looks at all connections every second, so that requests pay nothing for timers of their own. It ends a
connection that takes too long to send its head (408), stops in the middle of a body or trickles it (408), does not read
its answer (closed; the call behind it is cancelled as for any client that goes), or has no more requests (closed).
Heads are bounded in bytes and headers (431) and in the length of their target (414); connections are bounded in number
(503), and so are requests that wait for the answer to one before them. What is refused behind such a one has no place
for its answer: the connection ends after those that have. A WebSocket remains a connection, but only what it reads is
watched.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import grpc
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from uhm_common.logs import get_logger
from uhm_gateway.http.exchange import falls_behind
from uhm_gateway.http.metadata import request_id
from uhm_gateway.mapping.render import JSON, to_json
from uhm_gateway.rest.websocket import WebSocketProtocol
from uhm_gateway.server.corked import Corked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["ClientLimits", "Guard"]

log = get_logger()

WATCH_SECONDS = 1.0
PIPELINED = 8  # requests that wait for the answer to one before them
_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_URI_TOO_LONG: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Seconds, bytes and numbers; see the settings of the same names."""

    connections: int
    target_bytes: int
    head_bytes: int
    headers: int
    head_seconds: float
    body_seconds: float
    write_seconds: float


class Guard:
    """The connections of one server, and the watch over them. `protocol` is what uvicorn makes for each of them."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self.connections: set[_Guarded] = set()
        self.protocol: Callable[..., asyncio.Protocol] = partial(_Guarded, guard=self)

    async def watch(self) -> None:
        """Looks at the connections every second, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for connection in tuple(self.connections):
                connection.check(now)


class _Guarded(HttpToolsProtocol):
    """A connection, and since when it waits for what; `None` where it does not.

    A head is awaited from the first byte of it, and on a new connection from the start; the next request from the
    answer to the one before, for as long as uvicorn's configuration says.
    """

    def __init__(self, *arguments: Any, guard: Guard, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guard = guard
        self._limits = guard.limits
        self._head_since: float | None = None
        self._head_bytes = 0
        self._body_since: float | None = None
        self._body_at = 0.0
        self._body_bytes = 0
        self._idle_since: float | None = None
        self._sent = 0
        self._unsent_since = 0.0
        self._refused = False
        self._answering: RequestResponseCycle | None = None  # uvicorn's `cycle` is the newest instead

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = Corked(transport)
        super().connection_made(cast("asyncio.Transport", self._corked))
        if len(self._guard.connections) >= self._limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There are as many connections as the gateway takes.")
            return
        self._guard.connections.add(self)
        self._head_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.connections.discard(self)
        if self._answering is not None:
            _disconnect(self._answering)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        if self._refused:
            return
        if self._is_answering:
            self._close_after(self.cycle)
            return
        super().handle_websocket_upgrade()
        socket = self.transport.get_protocol()
        assert isinstance(socket, WebSocketProtocol)
        socket.on_lost = partial(self._guard.connections.discard, self)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        head_since = self._head_since
        super().data_received(data)
        if head_since is not None and self._head_since == head_since and not self._refused:  # it is still the same head
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since = self._head_since or time.monotonic()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_since = self._idle_since = None
        if self._refused:
            return
        limits = self._limits
        if (
            len(self.url) > limits.target_bytes
            or len(self.headers) > limits.headers
            or len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.head_bytes
        ):
            self._refuse_head()
            return
        if len(self.pipeline) >= PIPELINED:
            log.info("client.pipelined", most=PIPELINED, client=self.client)
            self._close_after(self.cycle)
            return
        super().on_headers_complete()
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn stops here, and would not see the client go
        self._body_since = self._body_at = time.monotonic()
        self._body_bytes = 0

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            self._body_at = time.monotonic()
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since = None
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Goes on with the next request, as uvicorn does, but without a timer where there is none yet."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = time.monotonic()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        if not self._refused:
            self._refuse(HTTPStatus.BAD_REQUEST, "The request is not HTTP/1.1.")

    def check(self, now: float) -> None:
        """Ends the connection where its client has taken too long."""
        if self._is_stuck(now):
            log.info("client.slow", waiting_for="answer to be read", client=self.client)
            self.transport.abort()
        elif self._refused:
            return
        elif self._head_since is not None and now - self._head_since > self._limits.head_seconds:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request's head did not come in time.")
        elif self._body_since is not None and self._is_idle(now):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request's body did not come in time.")
        elif self._head_since is None and self._has_left(now):
            self.transport.close()

    def _has_left(self, now: float) -> bool:
        """Whether the last answer was the last that this client wanted, as far as one can tell."""
        return self._idle_since is not None and now - self._idle_since > self.timeout_keep_alive

    def _is_idle(self, now: float) -> bool:
        """Whether the body has stopped or trickles, and not because it is held back from here."""
        cycle = self.cycle
        if self.flow.read_paused or cycle.response_complete or cycle.waiting_for_100_continue:
            self._body_since = self._body_at = now
            self._body_bytes = 0
            return False
        assert self._body_since is not None
        most = self._limits.body_seconds
        trickles = falls_behind(self._body_bytes, seconds=now - self._body_since, pause_seconds=most)
        return now - self._body_at > most or (trickles and self._has_length())

    def _has_length(self) -> bool:
        return any(name == b"content-length" for name, _ in self.headers)

    def _is_stuck(self, now: float) -> bool:
        """Whether something is to be sent, and nothing of it has gone for too long."""
        sent = self._corked.sent
        if sent > self._sent or not self.transport.get_write_buffer_size():
            self._sent, self._unsent_since = sent, now
            return False
        return now - self._unsent_since > self._limits.write_seconds

    def _refuse_head(self) -> None:
        limits = self._limits
        if len(self.url) > limits.target_bytes or not self.url:
            self._refuse(
                HTTPStatus.REQUEST_URI_TOO_LONG, f"The request's target is longer than {limits.target_bytes} bytes."
            )
        else:
            most = f"{limits.headers} headers or {limits.head_bytes} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request's head has more than {most}.")

    @property
    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answers and closes; who serves the request, if anybody does, sees its client gone."""
        self._refused = True
        log.info("client.refused", status=status.value, client=self.client)
        if self._body_since is None:  # it is a head, and all before it are whole
            if self._is_answering:
                self._close_after(self.cycle)
                return
            begun = False
        elif self.pipeline:
            self.pipeline.popleft()
            self._close_after(self.pipeline[0][0] if self.pipeline else self._answering)
            return
        else:
            begun = self.cycle.response_started
            _disconnect(self.cycle)
        if not begun:
            self.transport.write(_answer(status, message, headers=self.headers or ()))
        self.transport.close()

    def _close_after(self, last: RequestResponseCycle | None) -> None:
        """Takes nothing more, and closes once the answers up to this one are out."""
        self._refused = True
        assert last is not None
        last.keep_alive = False
        self.cycle = last


def _disconnect(cycle: RequestResponseCycle) -> None:
    if not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()


def _answer(status: HTTPStatus, message: str, *, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    body = to_json({"code": _CODES[status].value[0], "message": message, "details": []})
    given = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
    head = [
        b"HTTP/1.1 %d %b" % (status, status.phrase.encode()),
        b"content-type: " + JSON,
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id(given).encode(),
        b"x-content-type-options: nosniff",
        b"cache-control: no-store",
        b"connection: close",
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        head.append(b"retry-after: 1")
    return b"\r\n".join((*head, b"", body))
