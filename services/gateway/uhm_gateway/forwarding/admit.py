"""Admission before the gRPC port's handlers: the same rates and bounds as on the REST port.

Health and reflection are no services of the API, and their unary calls are always let in, since probes make them; their
streams, which may last, count as all streams do.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import grpc
from grpc_status import rpc_status

from uhm_common.errors import UhmError
from uhm_gateway.limits.clients import address_of_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence

    from uhm_gateway.limits.admission import Admission
    from uhm_gateway.limits.clients import TrustedProxies

__all__ = ["Admitting", "StreamsAdmitting"]

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Admitting(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in its stub only
    """The handlers of another, each behind the admission; a call that is refused ends with google.rpc.RetryInfo."""

    def __init__(self, inner: Any, *, admission: Admission, proxies: TrustedProxies) -> None:
        self._inner = inner
        self._admission = admission
        self._proxies = proxies
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, or None where the method is not forwarded."""
        method = handler_call_details.method
        known = self._handlers.get(method)
        if known is None:
            handler: Any = self._inner.service(handler_call_details)
            if handler is None:
                return None
            known = self._handlers[method] = self._admitted(method, handler)
        return known

    def _admitted(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        behaviour = getattr(handler, kind)
        if inspect.isasyncgenfunction(behaviour):
            behaviour = _writing(behaviour)
        admitted: grpc.RpcMethodHandler[Any, Any] = getattr(grpc, f"{kind}_rpc_method_handler")(
            self._behind(behaviour, method.split("/")[1], streams=kind != "unary_unary"),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return admitted

    def _behind(self, behaviour: Callable[[Any, Any], Awaitable[Any]], service: str, *, streams: bool) -> Any:
        async def call(request: Any, context: Any) -> Any:
            try:
                caller = await self._caller(context)
                with self._admission.slot(caller, service=service, streams=streams):
                    return await behaviour(request, context)
            except UhmError as error:
                await context.abort_with_status(rpc_status.to_status(error.to_status()))

        return call

    async def _caller(self, context: Any) -> str:
        metadata = context.invocation_metadata() or ()
        header = self._proxies.header
        said = [value for key, value in metadata if key == header] if self._proxies.networks else ()
        address = self._proxies.address(address_of_peer(context.peer()), said)
        authorization = next((value for key, value in metadata if key == "authorization"), "")
        return await self._admission.caller(address=address, authorization=authorization)


class StreamsAdmitting:
    """A server, as who adds handlers to it sees it, that has their streams behind the admission."""

    def __init__(self, server: grpc.aio.Server, *, admission: Admission, proxies: TrustedProxies) -> None:
        self._server = server
        self._admission = admission
        self._proxies = proxies

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Adds each behind the admission."""
        self._server.add_generic_rpc_handlers(
            [_Streams(handler, admission=self._admission, proxies=self._proxies) for handler in handlers]
        )

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds nothing: grpc.aio has no use for them beside the generic ones."""


class _Streams(Admitting):
    def _admitted(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.unary_unary is not None:
            known: grpc.RpcMethodHandler[Any, Any] = handler
            return known
        return super()._admitted(method, handler)


def _writing(generate: Callable[[Any, Any], AsyncIterable[Any]]) -> Callable[[Any, Any], Awaitable[None]]:
    """A behaviour that yields, as one that writes."""

    async def write(request: Any, context: Any) -> None:
        async for message in generate(request, context):
            await context.write(message)

    return write
