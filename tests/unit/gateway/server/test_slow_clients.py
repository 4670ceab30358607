"""Connections that are held too long, or whose heads are too large, over a transport that only notes what is done."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from uhm_gateway.server.slow_clients import ClientLimits, Guard

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LIMITS = ClientLimits(
    connections=2,
    target_bytes=100,
    head_bytes=1000,
    headers=10,
    head_seconds=10,
    body_seconds=20,
    write_seconds=30,
)
KEEP_ALIVE_SECONDS = 60
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


class Connection:
    def __init__(self) -> None:
        config = uvicorn.Config(
            hello, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE_SECONDS
        )
        self.guard = Guard(LIMITS)
        self.transport = Transport()
        self.protocol: Any = self.guard.protocol(config, ServerState(), {})
        self.protocol.connection_made(self.transport)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)
            await asyncio.sleep(0.01)

    def check(self, after: float) -> None:
        """Has the watch look at the connection so many seconds from now."""
        self.protocol.check(time.monotonic() + after)

    @property
    def status(self) -> bytes:
        """Of the first answer."""
        return self.transport.written[9:12]


async def test_a_connection_is_kept_for_the_next_request_but_not_for_ever() -> None:
    connection = Connection()
    await connection.send(GET, GET)
    assert connection.transport.written.count(b"HTTP/1.1 200") == 2
    connection.check(KEEP_ALIVE_SECONDS - 1)
    assert not connection.transport.closed
    connection.check(KEEP_ALIVE_SECONDS + 1)
    assert connection.transport.closed


async def test_requests_that_come_together_are_answered_one_after_the_other() -> None:
    connection = Connection()
    await connection.send(GET * 3)
    assert connection.transport.written.count(b"HTTP/1.1 200") == 3
    connection.check(1)
    assert not connection.transport.closed


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_head_that_does_not_end(before: bytes) -> None:
    connection = Connection()
    await connection.send(before + GET[:-2])
    connection.check(LIMITS.head_seconds - 1)
    assert not connection.transport.closed
    connection.check(LIMITS.head_seconds + 1)
    assert connection.transport.closed
    assert b"HTTP/1.1 408" in connection.transport.written


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"GET / HTTP/1.1\r\n", b"a: %b\r\n\r\n" % (b"b" * 970)], b"200"),
        ([b"GET / HTTP/1.1\r\na: %b\r\n\r\n" % (b"b" * 1000)], b"431"),
        ([b"GET / HTTP/1.1\r\n", *[b"a: %b\r\n" % (b"b" * 150)] * 7], b"431"),
        ([b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10, b"\r\n"], b"200"),
        ([b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 11, b"\r\n"], b"431"),
        ([b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 100)], b"414"),
    ],
)
async def test_heads_have_a_size(pieces: list[bytes], status: bytes) -> None:
    connection = Connection()
    await connection.send(*pieces)
    assert connection.status == status


async def test_what_came_before_does_not_count_for_a_head() -> None:
    connection = Connection()
    post = b"POST / HTTP/1.1\r\ncontent-length: 2000\r\n\r\n" + bytes(2000)
    await connection.send(post[:100], post[100:] + GET[:10], GET[10:])
    assert connection.transport.written.count(b"HTTP/1.1 200") == 2


async def test_there_are_only_so_many_connections() -> None:
    connection = Connection()
    connection.guard.connections.update(object() for _ in range(LIMITS.connections))  # type: ignore[misc]
    again: Any = connection.guard.protocol(connection.protocol.config, ServerState(), {})
    again.connection_made(transport := Transport())
    assert transport.written.startswith(b"HTTP/1.1 503")
    assert transport.closed
