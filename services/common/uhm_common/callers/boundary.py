"""The one interceptor of every service: who calls, what went wrong, and one log line per call."""

from __future__ import annotations

import time
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from grpc_status import rpc_status
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from uhm_common.callers.access import access_of, check_access
from uhm_common.callers.calls import REQUEST_ID, call_of, set_current_call
from uhm_common.callers.identity import set_current_identity
from uhm_common.errors import InternalError, PermissionDenied, UhmError
from uhm_common.idempotency import METADATA_KEY, InvalidIdempotencyKey
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from uhm_common.callers.identity import Identity
    from uhm_common.callers.verifier import TokenVerifier

__all__ = ["Boundary"]

log = get_logger()

OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Authenticates calls, turns errors into statuses, and logs each call once.

    Who may call a method is said by its option `uhmalguhm.access.v1.access`; a method without one is refused, and so is
    an idempotency key that the option does not ask for: whoever sends one counts on being served once. A
    streaming call ends when the session or the API key that it was made with is revoked, or the key expires. An error
    that is not a UhmError is INTERNAL with a correlation id and no detail; the log has the rest under that id.
    """

    def __init__(
        self,
        *,
        verifier: TokenVerifier | None,
        on_denied: Callable[[str, Identity], Awaitable[None]] | None = None,
    ) -> None:
        """Without a verifier, no call needs a token. `on_denied` is told which method who was not allowed to call."""
        self._verifier = verifier
        self._on_denied = on_denied

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
        streams = handler.request_streaming or handler.response_streaming
        arity = {False: "unary", True: "stream"}
        kind = f"{arity[handler.request_streaming]}_{arity[handler.response_streaming]}"
        behaviour = getattr(handler, kind)
        if handler.response_streaming:
            behaviour = _writing(behaviour)
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            self._call(method, behaviour, streams=streams),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _call(
        self, method: str, behaviour: Callable[..., Coroutine[Any, Any, Any]], *, streams: bool
    ) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.monotonic()
            with bound_contextvars(method=method, request_id=_metadata(context).get(REQUEST_ID, "")):
                try:
                    identity = await self._authenticate(method, context)
                    work = behaviour(request, context)
                    if streams and identity is not None and self._verifier is not None:
                        work = self._verifier.revocations.ending(
                            identity.session_id, work, expires_at=identity.expires_at
                        )
                    answer = await work
                except Exception as error:  # noqa: BLE001 - every error becomes a status, here
                    await _fail(error, context, started)
                log.info("call.done", ms=_ms_since(started))
                return answer

        return call

    async def _authenticate(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Identity | None:
        """Notes who calls; None where no token is needed.

        Raises Unauthenticated, PermissionDenied, InvalidIdempotencyKey or Unavailable.
        """
        metadata = _metadata(context)
        set_current_call(call_of(metadata))
        if self._verifier is None:
            return None
        access = access_of(method)
        if access is None:
            raise PermissionDenied(f"{method} does not say who may call it, so nobody may.")
        if METADATA_KEY in metadata and not access.idempotency_key:
            raise InvalidIdempotencyKey(
                "This call takes no idempotency key: sent twice, it is carried out twice.", hint="Send it without one."
            )
        if access.public:
            return None
        identity = await self._verifier.identity(metadata)
        try:
            check_access(access, identity)
        except PermissionDenied:
            await self._note_denied(method, identity)
            raise
        set_current_identity(identity)
        return identity

    async def _note_denied(self, method: str, identity: Identity) -> None:
        """Tells whoever wants to know; that it fails must not make the refusal another one."""
        if self._on_denied is None:
            return
        try:
            await self._on_denied(method, identity)
        except (UhmError, SQLAlchemyError, OSError) as error:
            log.warning("denial.not_noted", error=repr(error))


def _writing(behaviour: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A handler that writes what an iterator answers, so that all of the call is one coroutine, to be cancelled."""

    async def write(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    return write


def _metadata(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def _fail(error: Exception, context: grpc.aio.ServicerContext[Any, Any], started: float) -> NoReturn:
    """Ends the call with the error's status; logs it, once. Always raises."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, UhmError) and error.code is not grpc.StatusCode.INTERNAL:
        # Not the message: it repeats what was sent, and people send secrets where they do not belong.
        log.info("call.refused", code=error.code.name, reason=error.reason, ms=_ms_since(started), fields=error.fields)
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
