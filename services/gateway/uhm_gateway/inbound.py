"""The client's side of a call through REST: its body goes upstream, and its leaving ends the call."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

import grpc

from uhm_common.errors import UhmError
from uhm_gateway.http import ClientDisconnectedError
from uhm_gateway.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from uhm_gateway.http import Exchange

__all__ = ["Inbound"]


class Inbound:
    """Reads the client for as long as the context lasts.

    `messages`, where the method takes a stream, are written upstream, each when the upstream has taken the one before:
    this is what holds back a client that sends faster. Then it waits for the client to leave. Where the client leaves,
    or sends what does not fit, the call is cancelled and `error` says why. `outcome` knows how the call ended.
    """

    def __init__(self, exchange: Exchange, call: Any, messages: AsyncIterator[Message] | None = None) -> None:
        self._exchange = exchange
        self._call = call
        self._messages = messages
        self.outcome = Outcome(call)
        self.error: UhmError | ClientDisconnectedError | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._call.cancel()

    async def _run(self) -> None:
        try:
            if self._messages is not None:
                async for message in self._messages:
                    await self._call.write(message)
                await self._call.done_writing()
            await self._exchange.disconnected()
            self.error = ClientDisconnectedError()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The upstream has ended the call before it had everything; whoever awaits the answer learns how.
            return
        except (UhmError, ClientDisconnectedError) as error:
            self.error = error
        self._call.cancel()
