"""A fast lane for small unary calls: one HTTP/2 connection that speaks gRPC, written for asyncio and nothing else.

grpc.aio takes some 200 µs of processor time for a call, most of it to pass events between its threads and the loop's;
this takes about a tenth of that (`bench/gateway.py`). It is only ever used where it is sure to fit: the connection is
up, the request fits into one frame and the service's windows, and the stream into its limit. All else — connecting,
waiting for a service that restarts, large requests, streams, TLS — is grpc.aio's, to which `Lane.unary_unary` turns by
itself. What is spoken is the gRPC protocol over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
over RFC 9113.
"""

from __future__ import annotations

import asyncio
import base64
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uhm_gateway.upstream.frames import literal, named, string
from uhm_gateway.upstream.laneconnection import KEEPALIVE_SECONDS, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Lane"]

CONNECT_SECONDS = 5.0
RECONNECT_SECONDS = 1.0
LARGEST_HEADERS = 8 * 1024

Metadata = tuple[tuple[str, str | bytes], ...]


class Lane:
    """The connection to one address, made when first wanted and made anew, at most every second, when it has gone."""

    def __init__(self, address: str, *, message_limit: int, keepalive_seconds: float = KEEPALIVE_SECONDS) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        # :method POST, :scheme http and :authority, by their places in the static table.
        self._head = b"\x83\x86" + named(1, address.encode())
        self._limit = message_limit
        self._keepalive_seconds = keepalive_seconds
        self._connection: Connection | None = None
        self._made: list[Connection] = []  # the one, and those before it that still have calls
        self._connecting: asyncio.Task[None] | None = None
        self._tried = float("-inf")

    @property
    def is_up(self) -> bool:
        """Whether calls can take it now."""
        return self._connection is not None and self._connection.is_open

    def connect(self) -> None:
        """Begins to connect, unless it is under way or was tried less than a second ago."""
        now = time.monotonic()
        if self._connecting is None and now - self._tried >= RECONNECT_SECONDS:
            self._tried = now
            self._connecting = asyncio.create_task(self._try())

    def unary_unary(
        self,
        path: str,
        *,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        otherwise: Callable[..., Any],
    ) -> Callable[..., Any]:
        """A multi-callable as a channel's; `otherwise` is the channel's own, for what does not fit here."""
        head = self._head + named(4, path.encode())
        head += literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc")

        def start(message: Any, *, metadata: Metadata = (), timeout: float | None = None) -> Any:
            connection = self._connection
            if connection is None or not connection.is_open:
                self.connect()
                return otherwise(message, metadata=metadata, timeout=timeout)
            body: bytes = message if request_serializer is None else request_serializer(message)
            headers = head + _encoded(metadata)
            if timeout is not None:
                headers += _name("grpc-timeout") + string(_timeout(timeout))
            if len(headers) > LARGEST_HEADERS or not connection.has_room(len(body)):
                return otherwise(message, metadata=metadata, timeout=timeout)
            return connection.start(
                headers,
                body,
                parse=response_deserializer,
                timeout=timeout,
                again=lambda left: otherwise(message, metadata=metadata, timeout=left),
            )

        return start

    async def close(self) -> None:
        """Ends what connections there are; calls under way fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for connection in self._made:
            connection.close()
            await connection.lost.wait()

    async def _try(self) -> None:
        """Connects and waits for the service's first word; where it fails, the channel tells why to whoever calls."""
        loop = asyncio.get_running_loop()
        self._made = [each for each in self._made if not each.lost.is_set()]
        connection: Connection | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(message_limit=self._limit, keepalive_seconds=self._keepalive_seconds),
                    self._host,
                    self._port,
                )
                self._made.append(connection)
                await connection.settled.wait()
            self._connection = connection
        except (OSError, TimeoutError):
            if connection is not None:
                connection.close()
        finally:
            self._connecting = None


def _encoded(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    return b"".join(
        _name(name) + string(base64.b64encode(value) if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in metadata
    )


@lru_cache
def _name(name: str) -> bytes:
    """The first half of a literal: the same few in all calls."""
    return b"\0" + string(name.encode())


@lru_cache
def _timeout(seconds: float) -> bytes:
    """The value of `grpc-timeout`, which has eight digits at most."""
    milliseconds = max(1, round(seconds * 1000))
    return b"%dm" % milliseconds if milliseconds < 10**8 else b"%dS" % min(10**8 - 1, milliseconds // 1000)
