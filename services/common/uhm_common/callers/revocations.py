"""What is revoked: the ids of sessions and API keys that are refused although their tokens verify.

The auth service tells them in a stream that every service follows. While it is down, what is known stays in force, and
nothing else is refused: a service that cannot reach it goes on, rather than refusing everybody, for as long as the
tokens that are out are good, which is minutes. Nobody can revoke anything meanwhile either. A service that has just
started lets nobody in until the stream has begun.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from uhm_common.callers.identity import LOG_IN
from uhm_common.errors import Unauthenticated, Unavailable
from uhm_common.logs import get_logger
from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from typing import Any

__all__ = ["Revocation", "RevocationFollower", "Revocations", "Revoked"]

log = get_logger()

SWEEP_SECONDS = 60.0
SILENCE_SECONDS = 3.0
RETRY_SECONDS = 0.5
TOLD_SECONDS = 2.0

Answer = TypeVar("Answer")


class Revoked(Unauthenticated):
    """The session or the API key of a token that verifies was ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An id that is refused until `expires_at`, in seconds since the epoch.

    From then on no token of a session is good in any case, and the auth service is asked anew of an API key.
    """

    id: str
    expires_at: float


class Revocations:
    """The ids that are revoked, and who must be told of another."""

    def __init__(self, *, told: bool = True, clock: Callable[[], float] = time.time) -> None:
        """Where they are still to be told, nobody is let in before `begun`."""
        self._clock = clock
        self._told = asyncio.Event()
        if told:
            self._told.set()
        self._forget: list[Callable[[str | None], None]] = []
        self._known: dict[str, Revocation] = {}
        self._swept = clock()
        self._running: dict[str, set[asyncio.Future[None]]] = {}
        self._listeners: set[asyncio.Queue[Revocation | None]] = set()

    def __contains__(self, revoked_id: str) -> bool:
        known = self._known.get(revoked_id)
        return known is not None and known.expires_at > self._clock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def told(self) -> bool:
        """Whether anybody has told yet, so that `check` answers at once."""
        return self._told.is_set()

    def running(self, identity_id: str) -> int:
        """How much runs for a session or an API key that would be ended with it."""
        return len(self._running.get(identity_id, ()))

    async def check(self, identity_id: str) -> None:
        """Raises Revoked where a session or an API key was ended, and Unavailable where nobody has told yet."""
        if not self._told.is_set():
            await self._wait_told()
        if identity_id in self:
            raise Revoked("The session or API key of this token was ended.", hint=LOG_IN)

    def on_revoked(self, forget: Callable[[str | None], None]) -> None:
        """Has `forget` called with each id that is revoked, and with None where some may have been missed."""
        self._forget.append(forget)

    def begun(self) -> None:
        """Notes that all there are have been told, and that those to come will be; what ended meanwhile was missed."""
        self._told.set()
        for forget in self._forget:
            forget(None)

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Refuses these from now on, ends what runs for them, and forgets now and then those that have expired."""
        for revocation in revocations:
            known = self._known.get(revocation.id)
            if known is not None and known.expires_at >= revocation.expires_at:
                continue
            self._known[revocation.id] = revocation
            for forget in self._forget:
                forget(revocation.id)
            for running in self._running.pop(revocation.id, ()):
                if not running.done():
                    running.set_result(None)
            for listener in self._listeners:
                listener.put_nowait(revocation)
        if (now := self._clock()) >= self._swept + SWEEP_SECONDS:
            self._swept = now
            self._known = {key: known for key, known in self._known.items() if known.expires_at > now}

    @contextmanager
    def listening(self) -> Iterator[tuple[list[Revocation], asyncio.Queue[Revocation | None]]]:
        """All that are known, and a queue of those that come within the block, with a None for each `nudge`."""
        queue: asyncio.Queue[Revocation | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield list(self._known.values()), queue
        finally:
            self._listeners.discard(queue)

    def nudge(self) -> None:
        """Wakes whoever listens."""
        for listener in self._listeners:
            listener.put_nowait(None)

    async def ending(
        self, identity_id: str, work: Coroutine[Any, Any, Answer], *, expires_at: float | None = None
    ) -> Answer:
        """Does some work for a session or an API key. Raises Revoked where that ends or expires before the work."""
        left = None if expires_at is None else max(0.0, expires_at - self._clock())
        revoked = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work)
        if identity_id in self:
            revoked.set_result(None)
        self._running.setdefault(identity_id, set()).add(revoked)
        try:
            await asyncio.wait((task, revoked), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            over = not task.done()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            self._done(identity_id, revoked)
        if task.cancelled() and over:
            raise Revoked("The session or API key of this call was ended, or has expired.", hint=LOG_IN)
        return await task

    async def _wait_told(self) -> None:
        try:
            async with asyncio.timeout(TOLD_SECONDS):
                await self._told.wait()
        except TimeoutError as error:
            raise Unavailable(
                "The auth service does not answer, so tokens cannot be checked.", hint="Try again."
            ) from error

    def _done(self, identity_id: str, revoked: asyncio.Future[None]) -> None:
        if running := self._running.get(identity_id):
            running.discard(revoked)
            if not running:
                del self._running[identity_id]


class RevocationFollower:
    """Follows the auth service's stream of revocations."""

    def __init__(self, channel: grpc.aio.Channel, revocations: Revocations) -> None:
        self._auth = verification_pb2_grpc.VerificationServiceStub(channel)
        self._revocations = revocations
        self._lost = False

    async def run(self) -> None:
        """Notes what is revoked, until cancelled; begins again when the stream ends, or is silent for too long."""
        while True:
            try:
                await self._follow()
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                if not self._lost:
                    log.warning("revocations.lost", error=repr(error))
                self._lost = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        stream = self._auth.WatchRevocations(verification_pb2.WatchRevocationsRequest())
        begun = False
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await stream.read()
                if not isinstance(message, verification_pb2.WatchRevocationsResponse):
                    return  # the end of the stream
                self._revocations.add(
                    Revocation(id=told.id, expires_at=told.expire_time.ToMilliseconds() / 1000)
                    for told in message.revocations
                )
                if message.complete and not begun:
                    begun = True
                    self._revocations.begun()
                if self._lost:
                    log.info("revocations.found", known=len(self._revocations))
                self._lost = False
        finally:
            stream.cancel()
