"""One binding, ready to serve: HTTP request → message → upstream call → HTTP response.

All four kinds of methods are served. A stream that fails before its first message is answered like a unary call, with
the status of its error; later the error is the stream's last line or event, since the status is out by then.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from uhm_common.errors import UhmError, Unavailable
from uhm_gateway.errors import UnsupportedMediaType
from uhm_gateway.http.compress import varying
from uhm_gateway.http.conditional import etag_of, is_known
from uhm_gateway.http.metadata import CACHE_CONTROL, Allowed, initial_headers, seconds_of, to_metadata, trailing_headers
from uhm_gateway.http.status import Failure, failure_of_call, failure_of_error
from uhm_gateway.mapping.bind import Binder
from uhm_gateway.mapping.jsonstream import JsonSplitter
from uhm_gateway.mapping.render import Renderer, to_json
from uhm_gateway.rest.framing import framing_for
from uhm_gateway.rest.inbound import Inbound, Unwatched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    from uhm_common.callers.calls import Call
    from uhm_gateway.http.exchange import Exchange, Request
    from uhm_gateway.http.metadata import Headers
    from uhm_gateway.mapping.descriptors import Binding, Method
    from uhm_gateway.rest.framing import Framing
    from uhm_gateway.upstream.upstreams import Upstream

__all__ = ["Endpoint", "Limits", "OpenCalls"]

PIECE_BYTES = 1024 * 1024
# How long a stream may be silent before its head goes out; an error up to then has its own status.
OPENING_SECONDS = 2.0
PULSE_SECONDS = 15.0
# A larger answer takes longer to digest than others can wait for.
TAGGED_BYTES = 1024 * 1024
# curl sends what follows -d as application/x-www-form-urlencoded unless told otherwise. It is JSON all the same, and
# is taken as such; tokens travel in a header that no browser sends by itself, so that a foreign page's form gains
# nothing from it.
_JSON_TYPES = frozenset(
    ("", "application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "text/json")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes that a body may have: one that is held in memory, and one that is passed on in pieces.

    `body_seconds` is how long the former may pause, and `unary_seconds` how long a unary call may take where its client
    sets no deadline.
    """

    body: int
    upload: int
    body_seconds: float
    unary_seconds: float


@dataclass(slots=True)
class OpenCalls:
    """The calls under way, so that they can be ended when the gateway stops; whoever awaits one tells its client.

    `unwatched` are those too short to watch whether their clients are still there.
    """

    streams: set[Any] = field(default_factory=set)
    answers: set[Any] = field(default_factory=set)
    unwatched: Unwatched = field(default_factory=Unwatched)
    ending: bool = False

    def end_streams(self) -> None:
        """Cancels what may not end by itself."""
        self._cancel(self.streams)

    def end_all(self) -> None:
        """Cancels the rest."""
        self._cancel(self.streams | self.answers)

    def _cancel(self, calls: set[Any]) -> None:
        self.ending = True
        for call in tuple(calls):
            call.cancel()


class Endpoint:
    """Serves one binding of one method. Raises ConfigurationError where the rule does not fit the method."""

    def __init__(
        self,
        method: Method,
        binding: Binding,
        *,
        upstream: Upstream,
        pool: DescriptorPool,
        limits: Limits,
        allowed: Allowed,
        open_calls: OpenCalls,
    ) -> None:
        self.method = method
        self.upstream = upstream
        self.open_calls = open_calls
        self.binder = Binder(method, binding, pool=pool)
        self.renderer = Renderer(method, binding, pool=pool)
        self._pool = pool
        self._limits = limits
        self._allowed = allowed
        kind = "_".join(
            "stream" if streaming else "unary" for streaming in (method.client_streaming, method.server_streaming)
        )
        self._start: Callable[..., Any] = getattr(upstream if kind == "unary_unary" else upstream.channel, kind)(
            method.path,
            request_serializer=method.input_type.SerializeToString,
            response_deserializer=method.output_type.FromString,
        )

    async def serve(self, exchange: Exchange, *, captured: Sequence[str], caller: Call) -> None:
        """Answers a request; `captured` are the texts of the path's variables.

        Raises UhmError, AioRpcError or ClientDisconnectedError where nothing was answered yet.
        """
        message = None if self.method.client_streaming else await self._message(exchange, captured=captured)
        call = self.start(exchange, message, caller=caller)
        messages = self._messages(exchange, captured=captured) if message is None else None
        inbound = Inbound(exchange, call, messages, unwatched=self.open_calls.unwatched)
        await (self._answer_stream if self.method.server_streaming else self._answer)(exchange, call, inbound)

    def start(self, request: Request, message: Message | None, *, caller: Call) -> Any:
        """Starts the upstream call, with its one message unless the client streams. Raises BadRequest for a header."""
        metadata = to_metadata(request.headers, call=caller, allowed=self._allowed)
        asked = request.header(b"grpc-timeout")
        if asked:
            timeout: float | None = seconds_of(asked)
        else:
            is_stream = self.method.client_streaming or self.method.server_streaming
            timeout = None if is_stream else self._limits.unary_seconds
        if message is None:
            return self._start(metadata=metadata, timeout=timeout)
        return self._start(message, metadata=metadata, timeout=timeout)

    def why_cancelled(self, inbound: Inbound) -> BaseException:
        """The reason behind a CancelledError: the client, the end of the gateway, or this very task being cancelled."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return asyncio.CancelledError()
        if inbound.error is not None:
            return inbound.error
        if self.open_calls.ending:
            return Unavailable("The gateway is stopping.", hint="Try again in a moment.")
        return asyncio.CancelledError()

    async def _message(self, exchange: Exchange, *, captured: Sequence[str]) -> Message:
        limits = self._limits
        body = await exchange.body(limit=limits.body, pause_seconds=limits.body_seconds)
        query = exchange.query
        if self.binder.raw_body_field is not None:
            message = self.binder.bind(captured=captured, query=query)
            return self.binder.bind_raw(message, content_type=exchange.header(b"content-type"), data=body)
        if body and self.binder.takes_body:
            _check_json_type(exchange)
            return self.binder.bind(captured=captured, query=query, body=body)
        return self.binder.bind(captured=captured, query=query)

    async def _messages(self, exchange: Exchange, *, captured: Sequence[str]) -> AsyncIterator[Message]:
        """The messages of a stream: pieces of the raw body, or the values of a JSON stream; one without any body."""
        if not self.binder.takes_body:
            yield self.binder.bind(captured=captured, query=exchange.query)
            return
        pieces = exchange.pieces(limit=self._limits.upload)
        if self.binder.raw_body_field is not None:
            async for message in self.raw_messages(exchange, pieces, captured=captured):
                yield message
            return
        _check_json_type(exchange)
        splitter = JsonSplitter(limit=self._limits.body)
        async for piece in pieces:
            for value in splitter.feed(piece):
                yield self.binder.bind(captured=captured, query=exchange.query, body=value)
        if rest := splitter.close():
            yield self.binder.bind(captured=captured, query=exchange.query, body=rest)

    async def raw_messages(
        self, request: Request, pieces: AsyncIterator[bytes], *, captured: Sequence[str]
    ) -> AsyncIterator[Message]:
        """Pieces of a raw body as messages, of which the first one has what the path, query and head say."""
        message: Message | None = self.binder.bind(captured=captured, query=request.query)
        content_type = request.header(b"content-type")
        async for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                data = piece[start : start + PIECE_BYTES]
                yield self.binder.bind_raw(message or self.method.input_type(), content_type=content_type, data=data)
                message, content_type = None, ""
        if message is not None:
            yield self.binder.bind_raw(message, content_type=content_type, data=b"")

    async def _answer(self, exchange: Exchange, call: Any, inbound: Inbound) -> None:
        self.open_calls.answers.add(call)
        async with inbound:
            try:
                message = await call
                initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
            except asyncio.CancelledError:
                raise self.why_cancelled(inbound) from None
            except grpc.aio.AioRpcError as error:
                raise self.upstream.explained(await inbound.outcome.settled(error)) from error
            finally:
                self.open_calls.answers.discard(call)
        rendered = self.renderer.render(message)
        headers = [*_initial(exchange, initial), *trailing_headers(trailing)]
        if exchange.method in {"GET", "HEAD"} and len(rendered.body) <= TAGGED_BYTES:
            etag = etag_of(rendered.body)
            headers.append((b"etag", etag.encode()))
            if is_known(etag, exchange.header(b"if-none-match")):
                headers += varying(rendered.content_type, len(rendered.body))
                await exchange.respond_empty(304, headers=headers)
                return
        await exchange.respond(200, content_type=rendered.content_type, body=rendered.body, headers=headers)

    async def _answer_stream(self, exchange: Exchange, call: Any, inbound: Inbound) -> None:
        framing = framing_for(",".join(exchange.values(b"accept")), is_raw=self.renderer.is_raw)
        self.open_calls.streams.add(call)
        try:
            async with inbound:
                try:
                    await self._write_stream(exchange, call, framing)
                except grpc.aio.AioRpcError as error:
                    raise self.upstream.explained(await inbound.outcome.settled(error)) from error
            await exchange.end()
        except asyncio.CancelledError:
            why = self.why_cancelled(inbound)
            if not exchange.started or not isinstance(why, UhmError):
                raise why from None
            await self._end_stream(exchange, framing, failure_of_error(why))
        except grpc.aio.AioRpcError as error:
            if not exchange.started:
                raise
            await self._end_stream(exchange, framing, failure_of_call(error))
        finally:
            self.open_calls.streams.discard(call)

    async def _write_stream(self, exchange: Exchange, call: Any, framing: Framing) -> None:
        messages = aiter(call)
        coming = asyncio.ensure_future(anext(messages, None))
        # Raw bytes have no place for an error that comes late, so their head waits.
        await asyncio.wait({coming}, timeout=None if self.renderer.is_raw else OPENING_SECONDS)
        content_type = framing.content_type
        headers = list(framing.headers)
        if coming.done() and (first := coming.result()) is not None:
            headers += _initial(exchange, await call.initial_metadata())
            content_type = self.renderer.render(first).content_type if self.renderer.is_raw else content_type
        await exchange.start(200, [(b"content-type", content_type), *headers])
        await exchange.write(b"")
        if exchange.method == "HEAD":
            coming.cancel()
            return
        async with _pulsing(exchange, framing):
            if (message := await coming) is not None:
                await exchange.write(framing.message(self.renderer.render(message).body))
                async for message in messages:
                    await exchange.write(framing.message(self.renderer.render(message).body))

    async def _end_stream(self, exchange: Exchange, framing: Framing, failure: Failure) -> None:
        """Tells an error that came after the stream's head; raw bytes have no place for it and are cut."""
        if told := framing.error(to_json(failure.to_json(self._pool))):
            await exchange.end(told)


def _initial(exchange: Exchange, metadata: Any) -> Headers:
    """Initial metadata as headers; what the service says about keeping the answer replaces what the gateway would."""
    for key, value in metadata:
        if key == CACHE_CONTROL:
            exchange.cache_control = value.encode("latin-1")
    return initial_headers(metadata)


@contextlib.asynccontextmanager
async def _pulsing(exchange: Exchange, framing: Framing) -> AsyncIterator[None]:
    """Writes the framing's pulse, where it has one, every now and then for as long as the context lasts."""
    if not framing.pulse:
        yield
        return

    async def pulse() -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            await exchange.write(framing.pulse)

    task = asyncio.create_task(pulse())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _check_json_type(exchange: Exchange) -> None:
    """Raises UnsupportedMediaType where the body says that it is not JSON."""
    content_type = exchange.header(b"content-type").partition(";")[0].strip().lower()
    if content_type not in _JSON_TYPES and not (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        raise UnsupportedMediaType(f"A body of type {content_type!r} is not taken here.", hint="Send application/json.")
