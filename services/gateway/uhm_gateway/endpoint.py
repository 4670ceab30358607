"""One binding, ready to serve: HTTP request → message → upstream call → HTTP response.

All four kinds of methods are served. A stream that fails before its first message is answered like a unary call, with
the status of its error; later the error is the stream's last line, since the status is out by then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from uhm_common.errors import UhmError, Unavailable
from uhm_gateway.bind import Binder
from uhm_gateway.errors import UnsupportedMediaType
from uhm_gateway.inbound import Inbound
from uhm_gateway.jsonstream import JsonSplitter
from uhm_gateway.metadata import timeout_of, to_headers, to_metadata
from uhm_gateway.render import BINARY, NDJSON, Renderer, to_json
from uhm_gateway.status import Failure, failure_of_call, failure_of_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    from uhm_gateway.descriptors import Binding, Method
    from uhm_gateway.http import Exchange
    from uhm_gateway.upstreams import Upstream

__all__ = ["Endpoint", "Limits", "OpenCalls"]

PIECE_BYTES = 1024 * 1024
# How long a stream may be silent before its head goes out; an error up to then has its own status.
OPENING_SECONDS = 2.0
# curl sends what follows -d as application/x-www-form-urlencoded unless told otherwise. It is JSON all the same, and
# is taken as such; tokens travel in a header that no browser sends by itself, so that a foreign page's form gains
# nothing from it.
_JSON_TYPES = frozenset(
    ("", "application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "text/json")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes that a body may have: one that is held in memory, and one that is passed on in pieces."""

    body: int
    upload: int


@dataclass(slots=True)
class OpenCalls:
    """The calls under way, so that they can be ended when the gateway stops; whoever awaits one tells its client."""

    streams: set[Any] = field(default_factory=set)
    answers: set[Any] = field(default_factory=set)
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
        open_calls: OpenCalls,
    ) -> None:
        self.method = method
        self._upstream = upstream
        self._pool = pool
        self._limits = limits
        self._open_calls = open_calls
        self._binder = Binder(method, binding, pool=pool)
        self._renderer = Renderer(method, binding, pool=pool)
        kind = "_".join(
            "stream" if streaming else "unary" for streaming in (method.client_streaming, method.server_streaming)
        )
        self._start: Callable[..., Any] = getattr(upstream.channel, kind)(
            method.path,
            request_serializer=method.input_type.SerializeToString,
            response_deserializer=method.output_type.FromString,
        )

    async def serve(self, exchange: Exchange, *, captured: Sequence[str], identifier: str) -> None:
        """Answers a request; `captured` are the texts of the path's variables.

        Raises UhmError, AioRpcError or ClientDisconnectedError where nothing was answered yet.
        """
        metadata = to_metadata(exchange.headers, identifier=identifier)
        timeout = timeout_of(exchange.headers)
        query = exchange.raw_query.decode("latin-1")
        if self.method.client_streaming:
            call = self._start(metadata=metadata, timeout=timeout)
            messages = self._messages(exchange, captured=captured, query=query)
        else:
            call = self._start(
                await self._message(exchange, captured=captured, query=query), metadata=metadata, timeout=timeout
            )
            messages = None
        inbound = Inbound(exchange, call, messages)
        await (self._answer_stream if self.method.server_streaming else self._answer)(exchange, call, inbound)

    async def _message(self, exchange: Exchange, *, captured: Sequence[str], query: str) -> Message:
        body = await exchange.body(limit=self._limits.body)
        if self._binder.raw_body_field is not None:
            message = self._binder.bind(captured=captured, query=query)
            return self._binder.bind_raw(message, content_type=exchange.header(b"content-type"), data=body)
        if body and self._binder.takes_body:
            _check_json_type(exchange)
            return self._binder.bind(captured=captured, query=query, body=body)
        return self._binder.bind(captured=captured, query=query)

    async def _messages(self, exchange: Exchange, *, captured: Sequence[str], query: str) -> AsyncIterator[Message]:
        """The messages of a stream: pieces of the raw body, or the values of a JSON stream."""
        pieces = exchange.pieces(limit=self._limits.upload)
        if self._binder.raw_body_field is None:
            _check_json_type(exchange)
            splitter = JsonSplitter(limit=self._limits.body)
            async for piece in pieces:
                for value in splitter.feed(piece):
                    yield self._binder.bind(captured=captured, query=query, body=value)
            if rest := splitter.close():
                yield self._binder.bind(captured=captured, query=query, body=rest)
            return
        message: Message | None = self._binder.bind(captured=captured, query=query)
        content_type = exchange.header(b"content-type")
        async for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                data = piece[start : start + PIECE_BYTES]
                yield self._binder.bind_raw(message or self.method.input_type(), content_type=content_type, data=data)
                message, content_type = None, ""
        if message is not None:
            yield self._binder.bind_raw(message, content_type=content_type, data=b"")

    async def _answer(self, exchange: Exchange, call: Any, inbound: Inbound) -> None:
        self._open_calls.answers.add(call)
        async with inbound:
            try:
                message = await call
                headers = to_headers(await call.initial_metadata())
            except asyncio.CancelledError:
                raise self._why_cancelled(inbound) from None
            except grpc.aio.AioRpcError as error:
                raise self._upstream.explained(await inbound.outcome.settled(error)) from error
            finally:
                self._open_calls.answers.discard(call)
        rendered = self._renderer.render(message)
        await exchange.respond(200, content_type=rendered.content_type, body=rendered.body, headers=headers)

    async def _answer_stream(self, exchange: Exchange, call: Any, inbound: Inbound) -> None:
        self._open_calls.streams.add(call)
        try:
            async with inbound:
                try:
                    await self._write_stream(exchange, call)
                except grpc.aio.AioRpcError as error:
                    raise self._upstream.explained(await inbound.outcome.settled(error)) from error
            await exchange.end()
        except asyncio.CancelledError:
            why = self._why_cancelled(inbound)
            if not exchange.started or not isinstance(why, UhmError):
                raise why from None
            await self._end_stream(exchange, failure_of_error(why))
        except grpc.aio.AioRpcError as error:
            if not exchange.started:
                raise
            await self._end_stream(exchange, failure_of_call(error))
        finally:
            self._open_calls.streams.discard(call)

    async def _write_stream(self, exchange: Exchange, call: Any) -> None:
        messages = aiter(call)
        coming = asyncio.ensure_future(anext(messages, None))
        # Raw bytes have no place for an error that comes late, so their head waits.
        await asyncio.wait({coming}, timeout=None if self._renderer.is_raw else OPENING_SECONDS)
        content_type = BINARY if self._renderer.is_raw else NDJSON
        headers: list[tuple[bytes, bytes]] = []
        if coming.done() and (first := coming.result()) is not None:
            headers = to_headers(await call.initial_metadata())
            content_type = self._renderer.render(first).content_type if self._renderer.is_raw else NDJSON
        await exchange.start(200, [(b"content-type", content_type), *headers])
        await exchange.write(b"")
        if (message := await coming) is not None:
            await exchange.write(self._renderer.render_streamed(message))
            async for message in messages:
                await exchange.write(self._renderer.render_streamed(message))

    async def _end_stream(self, exchange: Exchange, failure: Failure) -> None:
        """Tells an error that came after the stream's head; raw bytes have no place for it and are cut."""
        if not self._renderer.is_raw:
            await exchange.end(to_json({"error": failure.to_json(self._pool)}) + b"\n")

    def _why_cancelled(self, inbound: Inbound) -> BaseException:
        """The reason behind a CancelledError: the client, the end of the gateway, or this very task being cancelled."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return asyncio.CancelledError()
        if inbound.error is not None:
            return inbound.error
        if self._open_calls.ending:
            return Unavailable("The gateway is stopping.", hint="Try again in a moment.")
        return asyncio.CancelledError()


def _check_json_type(exchange: Exchange) -> None:
    """Raises UnsupportedMediaType where the body says that it is not JSON, or is compressed."""
    content_type = exchange.header(b"content-type").partition(";")[0].strip().lower()
    if content_type not in _JSON_TYPES and not (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        raise UnsupportedMediaType(f"A body of type {content_type!r} is not taken here.", hint="Send application/json.")
    encoding = exchange.header(b"content-encoding").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMediaType(f"A body in encoding {encoding!r} is not taken here.", hint="Send it uncompressed.")
