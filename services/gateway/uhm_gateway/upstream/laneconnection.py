"""The connection of a lane: HTTP/2 frames in and out, and the calls on its streams (RFC 9113; gRPC over HTTP/2)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc

from uhm_gateway.upstream import frames
from uhm_gateway.upstream.frames import Frame, FrameError, Splitter, decode_headers, frame
from uhm_gateway.upstream.lanecall import LaneCall

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEEPALIVE_SECONDS", "KEEPALIVE_TIMEOUT_SECONDS", "LARGEST_BODY", "Connection"]

KEEPALIVE_SECONDS = 30.0
KEEPALIVE_TIMEOUT_SECONDS = 10.0
# Deadlines this far off are looked at once a second, together, until they are near; near ones have a timer each.
FAR_SECONDS = 10.0
LOOK_SECONDS = 1.0
# A deadline travels in milliseconds, and the service's clock may tick as coarsely.
ROUNDING_SECONDS = 0.01
LARGEST_BODY = frames.MAX_PAYLOAD - 5
LAST_STREAM = 2**31 - 1
WINDOW: Final = 2**31 - 1
_FIRST_WINDOW = 65535
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 3, 4
_REFUSED_STREAM, _CANCEL = 7, 8
_RESET_CODES = {
    _CANCEL: grpc.StatusCode.CANCELLED,
    11: grpc.StatusCode.RESOURCE_EXHAUSTED,
    12: grpc.StatusCode.PERMISSION_DENIED,
}


class Connection(asyncio.Protocol):
    """One connection: frames in, frames out, and the calls on its streams; frames of a turn of the loop go together."""

    def __init__(self, *, message_limit: int, keepalive_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = message_limit
        self._keepalive_seconds = keepalive_seconds
        self._splitter = Splitter()
        self._calls: dict[int, LaneCall] = {}
        self._far: dict[int, float] = {}
        self._look: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._next = 1
        self._window, self._stream_window = _FIRST_WINDOW, _FIRST_WINDOW
        self._most_streams = LAST_STREAM
        self._unacknowledged = 0
        self._block: tuple[int, int, bytes] | None = None  # stream, flags, and headers that CONTINUATION goes on with
        self._heard = False
        self._is_full = False
        self._keepalive: asyncio.TimerHandle | None = None
        self.is_open = False
        self.settled = asyncio.Event()  # whether it is open, or will never be
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says what this end takes: no pushes, no dynamic table, whole answers without asking for more."""
        self._transport: Any = transport
        stream_window = min(WINDOW, self._limit + frames.MAX_PAYLOAD)
        settings = b"".join(
            key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in ((1, 0), (2, 0), (4, stream_window))
        )
        self._send(frames.PREFACE + frame(frames.SETTINGS, 0, 0, settings) + _window_update(WINDOW - _FIRST_WINDOW))

    def connection_lost(self, _error: Exception | None) -> None:
        """Fails the calls under way; in grpc's own words, which `outcome.is_unanswered` knows."""
        self._end("Socket closed")
        self.lost.set()

    def pause_writing(self) -> None:
        """Takes no more calls while the service does not read those it has."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Takes calls again."""
        self._is_full = False

    def close(self) -> None:
        """Ends the connection, and does not wait for a service that does not read."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def has_room(self, size: int) -> bool:
        """Whether a call with a request of so many bytes can be sent at once."""
        return (
            size <= LARGEST_BODY
            and size + 5 <= self._window
            and size + 5 <= self._stream_window
            and len(self._calls) < self._most_streams
            and not self._is_full
        )

    def start(
        self,
        headers: bytes,
        body: bytes,
        *,
        parse: Callable[[bytes], Any] | None,
        timeout: float | None,
        again: Callable[[float | None], Any],
    ) -> LaneCall:
        """Sends a request. The caller has asked `has_room`; `again` is the call's other way, within so many seconds."""
        stream = self._next
        self._next += 2
        self.is_open = self._next < LAST_STREAM
        ended = self._loop.create_future()
        call = LaneCall(ended, parse=parse, limit=self._limit, drop=partial(self._drop, stream), again=again)
        self._calls[stream] = call
        if timeout is not None:
            call.deadline = self._loop.time() + timeout
            if timeout < FAR_SECONDS:
                call.timer = self._loop.call_at(call.deadline, self._expire, stream)
            else:
                self._far[stream] = call.deadline
                if self._look is None:
                    self._look = self._loop.call_later(LOOK_SECONDS, self._look_far)
        self._window -= len(body) + 5
        number = stream.to_bytes(4, "big")
        self._send(
            b"%b\x01\x04%b%b%b\0\x01%b\0%b%b"
            % (
                len(headers).to_bytes(3, "big"),
                number,
                headers,
                (len(body) + 5).to_bytes(3, "big"),
                number,
                len(body).to_bytes(4, "big"),
                body,
            )
        )
        return call

    def data_received(self, data: bytes) -> None:
        """Takes what has come; a peer that does not keep to the protocol is left."""
        self._heard = True
        try:
            for received in self._splitter.feed(data):
                self._take(received)
        except FrameError as error:
            self._end(f"Stream removed: {error}")
            self._transport.abort()
        if not self.is_open:
            self._close_if_over()

    def _take(self, received: Frame) -> None:
        kind, flags, stream, payload, length = received
        if self._block is not None and kind != frames.CONTINUATION:
            message = "a header block with something else in its middle"
            raise FrameError(message)
        if kind == frames.DATA:
            self._take_data(received)
        elif kind == frames.HEADERS:
            self._take_headers(stream, flags, payload)
        elif kind == frames.CONTINUATION:
            if self._block is None or self._block[0] != stream or len(self._block[2]) + length > self._limit:
                message = "a continuation of nothing"
                raise FrameError(message)
            _, first, begun = self._block
            self._block = None
            self._take_headers(stream, first | flags & frames.END_HEADERS, begun + payload)
        else:
            self._take_other(kind, flags, stream, payload)

    def _take_data(self, received: Frame) -> None:
        self._unacknowledged += received.length
        if self._unacknowledged >= WINDOW // 2:
            self._send(_window_update(self._unacknowledged))
            self._unacknowledged = 0
        call = self._calls.get(received.stream)
        if call is None:
            return
        if not call.take(received.payload):
            self._drop(received.stream)
        elif received.flags & frames.END_STREAM:
            del self._calls[received.stream]
            call.finish(b"")

    def _take_headers(self, stream: int, flags: int, block: bytes) -> None:
        if not flags & frames.END_HEADERS:
            self._block = (stream, flags, block)
            return
        call = self._calls.get(stream)
        if call is None:
            return
        if flags & frames.END_STREAM:
            call.finish(block)
            del self._calls[stream]
        else:
            call.head = decode_headers(block)

    def _take_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._take_settings(payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self._send(frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload, "big") & 0x7FFFFFFF
        elif kind == frames.RST_STREAM and (call := self._calls.pop(stream, None)):
            self._take_reset(call, int.from_bytes(payload, "big"))
        elif kind == frames.GOAWAY:
            # What is under way is answered still, unless the service says that it has not even looked at it.
            self.is_open = False
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            for number in [number for number in self._calls if number > last]:
                self._calls.pop(number).start_again()

    def _take_reset(self, call: LaneCall, code: int) -> None:
        """Many services reset a call at its deadline, which only the clock tells from one that they cancel."""
        if code == _REFUSED_STREAM:
            call.start_again()
        elif code == _CANCEL and self._loop.time() > call.deadline - ROUNDING_SECONDS:
            call.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        else:
            call.fail(_RESET_CODES.get(code, grpc.StatusCode.INTERNAL), f"RST_STREAM with error code {code}")

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):
            key, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
            if key == _MAX_CONCURRENT_STREAMS:
                self._most_streams = value
            elif key == _INITIAL_WINDOW_SIZE:
                self._stream_window = value
        self._send(frame(frames.SETTINGS, frames.ACK, 0))
        if self._keepalive is None:
            self.is_open = True
            self.settled.set()
            self._keepalive = self._loop.call_later(self._keepalive_seconds, self._check_alive)

    def _check_alive(self) -> None:
        """Asks a service that owes answers and has been silent; one that stays so is gone."""
        wait = self._keepalive_seconds
        if self._calls and not self._heard:
            self._send(frame(frames.PING, 0, 0, bytes(8)))
            wait = KEEPALIVE_TIMEOUT_SECONDS
            self._keepalive = self._loop.call_later(wait, self._check_answered)
            return
        self._heard = False
        self._keepalive = self._loop.call_later(wait, self._check_alive)

    def _check_answered(self) -> None:
        if self._heard:
            self._check_alive()
            return
        self._end("keepalive watchdog timeout")
        self._transport.abort()

    def _expire(self, stream: int) -> None:
        call = self._calls.get(stream)
        if call is not None:
            self._drop(stream)
            call.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _look_far(self) -> None:
        """Gives the calls whose far deadlines have come near a timer, and forgets those of calls that are over."""
        near = self._loop.time() + LOOK_SECONDS
        self._far = {stream: deadline for stream, deadline in self._far.items() if stream in self._calls}
        for stream in [stream for stream, deadline in self._far.items() if deadline <= near]:
            self._calls[stream].timer = self._loop.call_at(self._far.pop(stream), self._expire, stream)
        self._look = self._loop.call_later(LOOK_SECONDS, self._look_far) if self._far else None

    def _drop(self, stream: int) -> None:
        if self._calls.pop(stream, None) is not None:
            self._send(frame(frames.RST_STREAM, 0, stream, _CANCEL.to_bytes(4, "big")))
            self._close_if_over()

    def _close_if_over(self) -> None:
        """Ends a connection that takes no more calls once it has none."""
        if self.settled.is_set() and not self.is_open and not self._calls:
            self.close()

    def _end(self, details: str) -> None:
        self.is_open = False
        self.settled.set()
        for timer in (self._keepalive, self._look):
            if timer is not None:
                timer.cancel()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(grpc.StatusCode.UNAVAILABLE, details)

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data = b"".join(self._out)
        self._out.clear()
        if not self._transport.is_closing():
            self._transport.write(data)


def _window_update(size: int) -> bytes:
    return frame(frames.WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big"))
