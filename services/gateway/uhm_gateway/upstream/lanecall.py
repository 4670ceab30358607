"""A unary call on its way through a lane: what grpc.aio.UnaryUnaryCall is to a channel, and as much like it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from uhm_gateway.upstream.frames import decode_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from uhm_gateway.upstream.frames import Headers

__all__ = ["LaneCall"]

_CODES = {str(code.value[0]).encode(): code for code in grpc.StatusCode}
# gRPC's "HTTP to gRPC Status Code Mapping", for an answer that is none of gRPC's.
_HTTP_CODES = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}
_NOT_METADATA = frozenset(
    (b":status", b"content-type", b"grpc-status", b"grpc-message", b"grpc-encoding", b"grpc-accept-encoding", b"date")
)
_PREFIX_BYTES = 5
# What zlib calls the encodings that gRPC's own clients take.
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}


class LaneCall:
    """The call, and what has come of its answer. Awaited, it answers the message or raises AioRpcError."""

    __slots__ = (
        "_again",
        "_code",
        "_details",
        "_drop",
        "_ended",
        "_following",
        "_limit",
        "_message",
        "_parse",
        "_pieces",
        "_taken",
        "_trailers",
        "deadline",
        "head",
        "timer",
    )

    def __init__(
        self,
        ended: asyncio.Future[None],
        *,
        parse: Callable[[bytes], Any] | None,
        limit: int,
        drop: Callable[[], object],
        again: Callable[[float | None], Any],
    ) -> None:
        """`ended` is this call's own; `drop` forgets it where it is cancelled; `limit` bounds the answer, in bytes.

        `again` starts it another way, within so many seconds.
        """
        self._parse = parse
        self._limit = limit
        self._drop = drop
        self._again = again
        self._following: asyncio.Task[None] | None = None
        self._ended = ended
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._message: Any = b""
        self._pieces: list[bytes] = []
        self._taken = 0
        self._trailers: Headers = ()
        self.head: Headers | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.deadline = float("inf")  # by the loop's clock

    def __await__(self) -> Generator[Any, None, Any]:
        """The answer. Raises AioRpcError where there is none, CancelledError where the call was cancelled."""
        try:
            yield from self._ended
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                self._code or grpc.StatusCode.UNKNOWN,
                grpc.aio.Metadata(*_metadata(self.head or ())),
                grpc.aio.Metadata(*_metadata(self._trailers)),
                details=self._details,
                debug_error_string=None,
            )
        return self._message if self._parse is None else self._parse(self._message)

    def cancel(self) -> bool:
        """Ends the call here and at the service; answers whether it was still under way."""
        if self._code is not None:
            return False
        self._drop()
        self._note(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        self._ended.cancel()
        return True

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._code is not None

    def add_done_callback(self, callback: Callable[[LaneCall], None]) -> None:
        """Calls back once the call has ended."""
        self._ended.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        """The status, once there is one."""
        await self._settled()
        return self._code or grpc.StatusCode.UNKNOWN

    async def details(self) -> str:
        """The status's message."""
        await self._settled()
        return self._details

    async def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What came before the answer."""
        await self._settled()
        return _metadata(self.head or ())

    async def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What came after the answer."""
        await self._settled()
        return _metadata(self._trailers)

    def take(self, data: bytes) -> bool:
        """Adds a piece of the answer; answers whether it is within the limit."""
        self._taken += len(data)
        if self._taken > self._limit + _PREFIX_BYTES:
            self._fail_too_large(self._taken - _PREFIX_BYTES)
            return False
        self._pieces.append(data)
        return True

    def finish(self, block: bytes) -> None:
        """Ends the call with the headers that ended its stream: trailers, or the only ones there are.

        Raises FrameError.
        """
        self._trailers = decode_headers(block)
        said = dict(self._trailers)
        status = said.get(b"grpc-status")
        if status is None:
            http_status = dict(self.head or self._trailers).get(b":status", b"")
            code = _HTTP_CODES.get(http_status, grpc.StatusCode.UNKNOWN)
            self.fail(code, f"Received http2 header with status: {http_status.decode('latin-1')}")
        elif status != b"0":
            message = said.get(b"grpc-message", b"").decode("latin-1")
            self._end(_CODES.get(status, grpc.StatusCode.UNKNOWN), unquote(message, errors="replace"))
        else:
            self._unpack()

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call without the service's word."""
        if self._code is None:
            self._end(code, details)

    def start_again(self) -> None:
        """Goes the other way with what time is left; for when the service says that it has not looked at the call."""
        left = self.deadline - self._ended.get_loop().time()
        other = self._again(None if left == float("inf") else max(0.0, left))
        self._drop = other.cancel
        self._following = asyncio.ensure_future(self._follow(other))

    async def _follow(self, other: Any) -> None:
        """Makes its own what becomes of the call that went the other way."""
        try:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                self._message = await other
            self._parse = None
            self.head = await _headers(other.initial_metadata())
            self._trailers = await _headers(other.trailing_metadata())
            self.fail(await other.code(), await other.details() or "")
        finally:
            self.fail(grpc.StatusCode.UNKNOWN, "It is not known how the call ended.")  # unless it is

    def _unpack(self) -> None:
        """Takes the one message out of its frame ("Length-Prefixed-Message"), and ends the call with it."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        if len(data) < _PREFIX_BYTES or int.from_bytes(data[1:5], "big") != len(data) - _PREFIX_BYTES:
            self.fail(grpc.StatusCode.INTERNAL, "The answer is not one message.")
        elif data[0]:
            self._decompress(data[_PREFIX_BYTES:])
        else:
            self._message = data[_PREFIX_BYTES:]
            self._end(grpc.StatusCode.OK, "")

    def _decompress(self, data: bytes) -> None:
        """Does so for a compressed message, no further than the limit."""
        encoding = dict(self.head or ()).get(b"grpc-encoding", b"")
        if encoding not in _WINDOW_BITS:
            self.fail(grpc.StatusCode.INTERNAL, f"The answer is compressed in a way not known here: {encoding!r}.")
            return
        decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
        with contextlib.suppress(zlib.error):
            self._message = decompressor.decompress(data, self._limit + 1)
        if len(self._message) > self._limit:
            self._fail_too_large(len(self._message))
        elif not decompressor.eof:
            self.fail(grpc.StatusCode.INTERNAL, "The answer cannot be decompressed.")
        else:
            self._end(grpc.StatusCode.OK, "")

    def _fail_too_large(self, size: int) -> None:
        """In grpc's own words, which `status` knows; the size is what of it has come."""
        self.fail(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"CLIENT: Received message larger than max ({size} vs. {self._limit})"
        )

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        self._note(code, details)
        if not self._ended.done():
            self._ended.set_result(None)

    def _note(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details
        if self.timer is not None:
            self.timer.cancel()

    async def _settled(self) -> None:
        if self._code is None:
            await asyncio.wait([self._ended])


def _metadata(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(
        (name.decode("latin-1"), _unarmoured(value) if name.endswith(b"-bin") else value.decode("latin-1"))
        for name, value in headers
        if name not in _NOT_METADATA
    )


async def _headers(metadata: Awaitable[Iterable[tuple[str, str | bytes]]]) -> Headers:
    """Another call's metadata, as they travel."""
    return tuple(
        (name.encode(), base64.b64encode(value) if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in await metadata
    )


def _unarmoured(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4))
    except binascii.Error:
        return b""
