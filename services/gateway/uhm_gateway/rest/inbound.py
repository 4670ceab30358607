"""The client's side of a call through REST: its body goes upstream, and its leaving ends the call."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol, Self

import grpc

from uhm_common.errors import UhmError
from uhm_gateway.http.exchange import ClientDisconnectedError
from uhm_gateway.upstream.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

__all__ = ["Client", "Inbound", "Unwatched"]

# Most calls are over before it is worth a task to see whether their client is still there.
UNWATCHED_SECONDS = 0.05


class Client(Protocol):
    """Whoever is at the other end, be it of an exchange or of a WebSocket."""

    async def disconnected(self) -> None:
        """Returns when it has gone."""


class Unwatched:
    """The calls whose clients nobody watches yet: one timer for all of them, which costs a call next to nothing."""

    def __init__(self) -> None:
        self._young: set[Inbound] = set()
        self._old: set[Inbound] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, inbound: Inbound) -> None:
        """Has it watch its client in a moment: after UNWATCHED_SECONDS, and before twice that."""
        self._young.add(inbound)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, self._age)

    def discard(self, inbound: Inbound) -> None:
        """Forgets it, if it is still here."""
        self._young.discard(inbound)
        self._old.discard(inbound)

    def _age(self) -> None:
        for inbound in self._old:
            inbound.watch()
        self._old, self._young = self._young, set()
        self._timer = asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, self._age) if self._old else None


class Inbound:
    """Reads the client for as long as the context lasts.

    `messages`, where the method takes a stream, are written upstream, each when the upstream has taken the one before:
    this is what holds back a client that sends faster. Then it waits for the client to leave. Where the client leaves,
    or sends what does not fit, the call is cancelled and `error` says why. `outcome` knows how the call ended.
    """

    def __init__(
        self, client: Client, call: Any, messages: AsyncIterator[Message] | None = None, *, unwatched: Unwatched
    ) -> None:
        self._client = client
        self._call = call
        self._messages = messages
        self.outcome = Outcome(call, writes=messages is not None)
        self._task: asyncio.Task[None] | None = None
        self._unwatched = unwatched
        self.error: UhmError | ClientDisconnectedError | None = None

    async def __aenter__(self) -> Self:
        if self._messages is None:
            self._unwatched.add(self)
        else:
            self.watch()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unwatched.discard(self)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._call.cancel()

    def watch(self) -> None:
        """Begins to read the client."""
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            if self._messages is not None:
                async for message in self._messages:
                    await self._call.write(message)
                await self._call.done_writing()
            await self._client.disconnected()
            self.error = ClientDisconnectedError()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The upstream has ended the call before it had everything; whoever awaits the answer learns how.
            return
        except (UhmError, ClientDisconnectedError) as error:
            self.error = error
        except BaseException:
            self._call.cancel()
            raise
        self._call.cancel()
