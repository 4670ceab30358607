"""Admission before the gRPC port's handlers: the same rates and bounds as on the REST port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_status import rpc_status

from uhm_common.errors import UhmError
from uhm_gateway.clients import address_of_peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uhm_gateway.clients import TrustedProxies
    from uhm_gateway.limits import Admission

__all__ = ["Admitting"]


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
        service = method.split("/")[1]
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._behind(handler.unary_unary, service, streams=False))
        return grpc.stream_stream_rpc_method_handler(self._behind(handler.stream_stream, service, streams=True))

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
