"""How an upstream call really ended, where grpc.aio tells it badly."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Outcome", "is_unanswered"]

SETTLING_SECONDS = 1.0
SETTLING_STEP_SECONDS = 0.005
_WRITE_FAILED = "Internal error from Core"
# In UNAVAILABLE, grpc's own words for a peer that was not reached or went away. Nothing but the words tells them from a
# status that the peer sent: neither the debug string nor the metadata does.
_NOT_ANSWERED = (
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
    "empty address list",
    "Stream removed",
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "GOAWAY received",
    "Too many pings",
    "keepalive",
    "ping timeout",
    "recvmsg:",
    "sendmsg:",
)


def is_unanswered(error: grpc.aio.AioRpcError) -> bool:
    """Whether nobody answered: the upstream is down, or went away in the middle."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_NOT_ANSWERED)


class Outcome:
    """Remembers the status that the upstream sent.

    A write that fails because the upstream has ended the call makes the call's status INTERNAL, whether the upstream's
    own has come already or comes a moment later. Only a callback at the first moment sees all that come.
    """

    def __init__(self, call: Any, *, writes: bool = True) -> None:
        """`writes` is whether the call's messages are written one by one."""
        self._call = call
        self._sent: grpc.aio.AioRpcError | None = None
        if writes:
            call.add_done_callback(self._note)

    async def settled(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error, or the one that it hides."""
        if error.details() != _WRITE_FAILED:
            return error
        waited = 0.0
        while self._sent is None and waited < SETTLING_SECONDS:
            await asyncio.sleep(SETTLING_STEP_SECONDS)
            waited += SETTLING_STEP_SECONDS
            self._note(self._call)
        return self._sent or error

    def _note(self, _call: Any) -> None:
        details = _result(self._call.details())
        if details == _WRITE_FAILED:
            return
        self._sent = grpc.aio.AioRpcError(
            _result(self._call.code()),
            _result(self._call.initial_metadata()),
            _result(self._call.trailing_metadata()),
            details=details,
            debug_error_string=None,
        )


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for: a call's parts, once it has ended."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        return returned.value
    coroutine.close()
    return None
