"""Public keys that verify tokens: fetched, kept, and fetched again for an id that is not known yet.

A known key is answered at once, whatever else goes on. An unknown id waits for a fetch that begins after it was asked
for, since a key may be as new as the token; fetches begin at most once a second and are shared by all who wait, so
that made-up ids cost the auth service one call a second, and nobody else any time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import grpc
import jwt

from uhm_common.errors import Unavailable
from uhm_common.logs import get_logger
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["KeyCache", "KeySource", "auth_service_keys"]

log = get_logger()

KEPT_SECONDS = 300.0
FETCHED_AT_MOST_EVERY_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""For an answer, which includes connecting: so nobody is turned away while the auth service starts again."""


class KeySource(Protocol):
    """Where public keys come from."""

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id, or None where there is none. Raises Unavailable where nobody can say."""


class KeyCache:
    """Keys by their ids, as `fetch` answered them last. While it raises Unavailable, those known before stay good."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, jwt.PyJWK]]],
        *,
        kept_seconds: float = KEPT_SECONDS,
        interval_seconds: float = FETCHED_AT_MOST_EVERY_SECONDS,
    ) -> None:
        """After `kept_seconds` they are fetched again in the background; at most every `interval_seconds`."""
        self._fetch = fetch
        self._kept = kept_seconds
        self._interval = interval_seconds
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._begun = float("-inf")
        self._fetching = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None  # a fetch that has not begun

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id, or None. Raises Unavailable where it is unknown and the fetch fails."""
        if (key := self._keys.get(key_id)) is not None:
            if time.monotonic() - self._begun > self._kept:
                self._next_fetch()
            return key
        await self.renew()
        return self._keys.get(key_id)

    async def renew(self) -> None:
        """Waits for a fetch that begins after this, shared with all who wait for it. Raises what the fetch does."""
        await asyncio.shield(self._next_fetch())

    async def refresh(self) -> None:
        """Fetches them now. Raises what the fetch does."""
        async with self._fetching:
            self._begun = time.monotonic()
            self._keys = await self._fetch()

    def _next_fetch(self) -> asyncio.Task[None]:
        """The fetch that begins next, which is the same for all who ask for it before it does."""
        if self._next is None:
            self._next = asyncio.create_task(self._fetch_next())
            self._next.add_done_callback(_look_at)
        return self._next

    async def _fetch_next(self) -> None:
        await asyncio.sleep(self._begun + self._interval - time.monotonic())
        async with self._fetching:
            self._next = None
            self._begun = time.monotonic()
            self._keys = await self._fetch()


def auth_service_keys(channel: grpc.aio.Channel) -> KeyCache:
    """The keys of the auth service."""
    auth = auth_pb2_grpc.AuthServiceStub(channel)

    async def fetch() -> Mapping[str, jwt.PyJWK]:
        try:
            answer = await auth.GetKeys(auth_pb2.GetKeysRequest(), timeout=ANSWER_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(
                "The auth service does not answer, so tokens cannot be checked.", hint="Try again."
            ) from error
        return {
            key.kid: jwt.PyJWK(
                {"kty": key.kty, "crv": key.crv, "x": key.x, "kid": key.kid, "alg": key.alg, "use": key.use}
            )
            for key in answer.keys
        }

    return KeyCache(fetch)


def _look_at(fetch: asyncio.Task[None]) -> None:
    """Logs a fetch that failed; whoever waits for it gets the error as well, but there may be nobody."""
    if not fetch.cancelled() and (error := fetch.exception()) is not None:
        log.warning("keys.not_fetched", error=repr(error))
