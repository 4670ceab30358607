"""The one interceptor of every service: who calls, what went wrong, and one log line per call."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from grpc_status import rpc_status
from structlog.contextvars import bound_contextvars

from uhm_common.errors import InternalError, UhmError
from uhm_common.identity import TokenVerifier, set_current_identity
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

__all__ = ["Boundary"]

log = get_logger()

OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")
REQUEST_ID = "x-request-id"


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Authenticates calls, turns errors into statuses, and logs each call once.

    Methods in `public`, full names such as `/uhmalguhm.auth.v1.AuthService/CreateUser`, need no token. An error that is
    not a UhmError is INTERNAL with a correlation id and no detail; the log has the rest under that id.
    """

    def __init__(self, *, verifier: TokenVerifier | None, public: Collection[str] = ()) -> None:
        self._verifier = verifier
        self._public = frozenset(public)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a call."""
        handler = cast("Any", await continuation(handler_call_details))
        method: str = handler_call_details.method
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        arity = {False: "unary", True: "stream"}
        kind = f"{arity[handler.request_streaming]}_{arity[handler.response_streaming]}"
        wrap = self._stream if handler.response_streaming else self._unary
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            wrap(method, getattr(handler, kind)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.monotonic()
            with bound_contextvars(method=method, request_id=_metadata(context).get(REQUEST_ID, "")):
                try:
                    await self._authenticate(method, context)
                    answer = await behaviour(request, context)
                except Exception as error:  # noqa: BLE001 - every error becomes a status, here
                    await _fail(error, context, started)
                log.info("call.done", ms=_ms_since(started))
                return answer

        return call

    def _stream(self, method: str, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = time.monotonic()
            with bound_contextvars(method=method, request_id=_metadata(context).get(REQUEST_ID, "")):
                try:
                    await self._authenticate(method, context)
                    async for answer in behaviour(request, context):
                        yield answer
                except Exception as error:  # noqa: BLE001 - every error becomes a status, here
                    await _fail(error, context, started)
                log.info("call.done", ms=_ms_since(started))

        return call

    async def _authenticate(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self._verifier is not None and method not in self._public:
            set_current_identity(await self._verifier.identity(_metadata(context)))


def _metadata(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def _fail(error: Exception, context: grpc.aio.ServicerContext[Any, Any], started: float) -> NoReturn:
    """Ends the call with the error's status; logs it, once. Always raises."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, UhmError) and error.code is not grpc.StatusCode.INTERNAL:
        log.info(
            "call.refused", code=error.code.name, message=error.message, ms=_ms_since(started), fields=error.fields
        )
        shown = error
    else:
        correlation = uuid.uuid4().hex[:12]
        fields = error.fields if isinstance(error, UhmError) else {}
        log.error("call.failed", correlation_id=correlation, ms=_ms_since(started), fields=fields, exc_info=error)
        shown = InternalError(
            "Something went wrong on our side.",
            hint=f"The log has the cause under {correlation}.",
            correlation_id=correlation,
        )
    status = rpc_status.to_status(shown.to_status())
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError  # abort has raised


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)
