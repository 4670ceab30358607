"""API keys: what they look like, and what the auth service says of them, kept for a minute.

A key is `uhm_`, its id of 16 hexadecimal digits, `_`, and its secret of 43 characters of base64url. It is sent like an
access token.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import grpc

from uhm_common.errors import Unauthenticated, Unavailable
from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm_common.callers.revocations import Revocations

__all__ = ["CACHED_SECONDS", "KEY", "ApiKeySource", "RemoteApiKeys", "VerifiedKey", "is_api_key"]

PREFIX = "uhm_"
KEY = re.compile(r"uhm_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
CACHED_SECONDS = 60.0
CACHED_KEYS = 1024
ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedKey:
    """A key that is good. `expires_at` is in seconds since the epoch; None: it does not expire."""

    id: str
    username: str
    role: str
    scopes: frozenset[str]
    expires_at: int | None


class ApiKeySource(Protocol):
    """Who knows API keys."""

    async def verify(self, key: str) -> VerifiedKey:
        """What a key is good for. Raises Unauthenticated where it is not, Unavailable where nobody can say."""


def is_api_key(token: str) -> bool:
    """Whether a bearer token is meant as an API key; a JSON Web Token never begins like that."""
    return token.startswith(PREFIX)


class RemoteApiKeys:
    """Asks the auth service, and keeps its answers until it tells that a key is revoked, or is not what it was."""

    def __init__(
        self, channel: grpc.aio.Channel, revocations: Revocations, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._auth = verification_pb2_grpc.VerificationServiceStub(channel)
        self._revocations = revocations
        self._clock = clock
        self._cache: OrderedDict[str, tuple[VerifiedKey, float]] = OrderedDict()
        revocations.on_revoked(self._forget)

    async def verify(self, key: str) -> VerifiedKey:
        """What a key is good for; asked once a minute. Raises Unauthenticated or Unavailable."""
        verified, until = self._cache.get(key, (None, 0.0))
        if verified is not None and self._clock() < until:
            return verified
        self._cache.pop(key, None)
        verified = await self._ask(key)
        if verified.id in self._revocations:
            return verified  # the answer may be older than that
        until = self._clock() + CACHED_SECONDS
        self._cache[key] = (verified, min(until, verified.expires_at or until))
        if len(self._cache) > CACHED_KEYS:
            self._cache.popitem(last=False)
        return verified

    def _forget(self, key_id: str | None) -> None:
        """Forgets what is known of a key; None: of all."""
        gone = [key for key, (known, _) in self._cache.items() if key_id in (None, known.id)]
        for key in gone:
            del self._cache[key]

    async def _ask(self, key: str) -> VerifiedKey:
        if KEY.fullmatch(key) is None:
            raise Unauthenticated("The API key is not good.", hint="Make one with POST /api/v1/api_keys.")
        request = verification_pb2.VerifyApiKeyRequest(key=key)
        try:
            answer = await self._auth.VerifyApiKey(request, timeout=ANSWER_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise Unauthenticated(error.details() or "The API key is not good.") from error
            raise Unavailable(
                "The auth service does not answer, so API keys cannot be checked.", hint="Try again."
            ) from error
        expires = answer.expire_time.ToSeconds() if answer.HasField("expire_time") else None
        return VerifiedKey(
            id=answer.id,
            username=answer.username,
            role=answer.role,
            scopes=frozenset(answer.scopes),
            expires_at=expires,
        )
