"""gRPC in, gRPC out: every method of the routed services is forwarded by its name, its messages as the bytes they are.

Carried both ways are metadata (initial and trailing, `grpc-status-details-bin` among it), deadlines and cancellation.
The gateway adds where a call came from, and its id, which goes back to the client in the trailing metadata. Either side
may compress its messages: each connection agrees on that for itself, and the gateway compresses nothing.
Unary calls go through unary handlers, which are cheaper and cannot be half open; all other kinds are pumped as two
streams. What is not forwarded is UNIMPLEMENTED, which grpc says by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import grpc

from uhm_common.callers.calls import REQUEST_ID, Call
from uhm_gateway.http.metadata import OWN_PREFIX, about, request_id
from uhm_gateway.limits.clients import TrustedProxies, address_of_peer, shown_agent
from uhm_gateway.upstream.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from uhm_gateway.http.metadata import Metadata
    from uhm_gateway.upstream.upstreams import Upstream

__all__ = ["Forwarder"]

CANCELLATION_SECONDS = 0.005

Context = grpc.aio.ServicerContext[bytes, bytes]

# These describe one connection, and the next one has its own; the id is passed on by itself.
_OF_THE_CONNECTION = frozenset(
    ("user-agent", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "te", "content-type", REQUEST_ID)
)


class Forwarder(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in its stub only
    """Handlers of all methods of some upstreams, made once."""

    def __init__(self, upstreams: Iterable[Upstream], *, proxies: TrustedProxies) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for upstream in upstreams:
            for method in upstream.service.methods:
                unary = not method.client_streaming and not method.server_streaming
                self._handlers[method.path] = (_unary if unary else _streams)(upstream, method.path, proxies)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a call, or None where the method is not forwarded."""
        return self._handlers.get(handler_call_details.method)


def _unary(upstream: Upstream, path: str, proxies: TrustedProxies) -> grpc.RpcMethodHandler[bytes, bytes]:
    start = upstream.unary_unary(path)

    async def forward(request: bytes, context: Context) -> bytes:
        metadata = _onward(context, proxies)
        call = start(request, metadata=metadata, timeout=context.time_remaining())
        try:
            response: bytes = await call
            await _send_initial(context, call)
            context.set_trailing_metadata((*await call.trailing_metadata(), metadata[0]))
        except grpc.aio.AioRpcError as error:
            await _fail(context, upstream.explained(error), metadata[0])
        finally:
            call.cancel()
        return response

    return grpc.unary_unary_rpc_method_handler(forward)


def _streams(upstream: Upstream, path: str, proxies: TrustedProxies) -> grpc.RpcMethodHandler[bytes, bytes]:
    start: Callable[..., Any] = cast("Any", upstream.channel).stream_stream(path)

    async def forward(requests: AsyncIterator[bytes], context: Context) -> None:
        metadata = _onward(context, proxies)
        call = start(metadata=metadata, timeout=context.time_remaining())
        outcome = Outcome(call)
        sending = asyncio.create_task(_send_all(requests, call))
        try:
            await _send_initial(context, call)
            async for message in call:
                await context.write(message)
            context.set_trailing_metadata((*await call.trailing_metadata(), metadata[0]))
        except grpc.aio.AioRpcError as error:
            await _fail(context, upstream.explained(await outcome.settled(error)), metadata[0])
        finally:
            call.cancel()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    return grpc.stream_stream_rpc_method_handler(forward)


async def _send_all(requests: AsyncIterator[bytes], call: Any) -> None:
    """Pumps the client's messages upstream, no faster than it takes them, and then says that there are no more."""
    try:
        async for request in requests:
            await call.write(request)
        # A client that cancels looks here as if it had no more to send, until the handler, and with it this task, is
        # cancelled right after. To say "no more" upstream before that would pass off half an upload as a whole one.
        await asyncio.sleep(CANCELLATION_SECONDS)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The upstream has ended the call; how, the receiving side learns.
        return


async def _send_initial(context: Context, call: Any) -> None:
    """Sends on the upstream's initial metadata, once it is there; a call that failed at once has none."""
    metadata: Any = tuple(await call.initial_metadata())
    if metadata or not call.done():
        await context.send_initial_metadata(metadata)


async def _fail(context: Context, error: grpc.aio.AioRpcError, identifier: tuple[str, str | bytes]) -> None:
    """Ends the call as the upstream ended it. Always raises."""
    trailers: Any = (*(error.trailing_metadata() or ()), identifier)
    await context.abort(error.code(), error.details() or "", trailers)


def _onward(context: Context, proxies: TrustedProxies) -> Metadata:
    """What goes upstream: the call's id, what else the gateway says of it, and the client's own metadata."""
    given: Any = context.invocation_metadata() or ()
    texts = dict(given)
    said = [value for key, value in given if key == proxies.header] if proxies.networks else ()
    call = Call(
        request_id=request_id(texts.get(REQUEST_ID, "")),
        address=proxies.address(address_of_peer(context.peer()), said),
        user_agent=shown_agent(texts.get("user-agent", "")),
    )
    onward = [(key, value) for key, value in given if key not in _OF_THE_CONNECTION and not key.startswith(OWN_PREFIX)]
    return (*about(call), *onward)
