"""Who calls: access tokens verified with the public keys of the auth service, which are fetched and kept.

Tokens are JSON Web Tokens (RFC 7519) signed with EdDSA (RFC 8037); nothing else is accepted. Claims:
`iss aud iat nbf exp jti sub identity fresh type sid`, `type` being "access" or "refresh".
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import jwt

from uhm_common.errors import Unauthenticated, Unavailable
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALGORITHM",
    "AuthServiceKeys",
    "Identity",
    "KeySource",
    "TokenVerifier",
    "bearer_metadata",
    "bearer_token",
    "current_identity",
]

ALGORITHM = "EdDSA"
REQUIRED_CLAIMS = ["iss", "aud", "iat", "nbf", "exp", "jti", "sub", "type"]
LEEWAY_SECONDS = 5
KEYS_KEPT_SECONDS = 300.0
KEYS_ASKED_AT_MOST_EVERY_SECONDS = 1.0
LOG_IN = "Log in with `uhm login`, or POST /api/v1/token/issue, and send `Authorization: Bearer <access_token>`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls, and the token that says so, to be passed on to other services on the caller's behalf."""

    username: str
    session_id: str
    token: str = field(repr=False)


class KeySource(Protocol):
    """Where public keys come from."""

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id, or None where there is none. Raises Unavailable where nobody can say."""


class AuthServiceKeys:
    """Keys fetched from the auth service, kept for five minutes, fetched anew for an id not seen before."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._auth = auth_pb2_grpc.AuthServiceStub(channel)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id; while the auth service is down, the ones known before go on being used."""
        if key_id not in self._keys or time.monotonic() - self._fetched > KEYS_KEPT_SECONDS:
            async with self._lock:
                await self._refresh(key_id)
        return self._keys.get(key_id)

    async def _refresh(self, key_id: str) -> None:
        age = time.monotonic() - self._fetched
        if age < KEYS_ASKED_AT_MOST_EVERY_SECONDS or (key_id in self._keys and age < KEYS_KEPT_SECONDS):
            return
        try:
            answer = await self._auth.GetKeys(auth_pb2.GetKeysRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            if key_id in self._keys:
                return
            raise Unavailable(
                "The auth service does not answer, so tokens cannot be checked.", hint="Try again."
            ) from error
        self._keys = {
            key.kid: jwt.PyJWK(
                {"kty": key.kty, "crv": key.crv, "x": key.x, "kid": key.kid, "alg": key.alg, "use": key.use}
            )
            for key in answer.keys
        }
        self._fetched = time.monotonic()


class TokenVerifier:
    """Checks tokens: signature, times, issuer, audience and kind."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def claims(self, token: str, *, kind: str) -> dict[str, Any]:
        """The claims of a valid token of that kind, "access" or "refresh". Raises Unauthenticated."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise Unauthenticated("The token is not a JSON Web Token.", hint=LOG_IN) from error
        key_id = header.get("kid")
        key = await self._keys.key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unauthenticated("The token is signed with a key that is not ours.", hint=LOG_IN)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED_CLAIMS},
            )
        except jwt.ExpiredSignatureError as error:
            hint = "Get a new one with POST /api/v1/token/refresh." if kind == "access" else LOG_IN
            raise Unauthenticated(f"The {kind} token has expired.", hint=hint) from error
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"The token is not valid: {error}.", hint=LOG_IN) from error
        if claims["type"] != kind:
            article = {"access": "an access", "refresh": "a refresh"}
            raise Unauthenticated(
                f"This is {article.get(claims['type'], 'another')} token; {article[kind]} token is needed.", hint=LOG_IN
            )
        return claims

    async def identity(self, metadata: Mapping[str, str]) -> Identity:
        """Who sent this metadata. Raises Unauthenticated."""
        token = bearer_token(metadata)
        claims = await self.claims(token, kind="access")
        return Identity(username=claims["sub"], session_id=claims.get("sid", ""), token=token)


def bearer_token(metadata: Mapping[str, str]) -> str:
    """The token of an `authorization: Bearer …` header (RFC 6750). Raises Unauthenticated."""
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    if not scheme:
        raise Unauthenticated("A token is needed.", hint=LOG_IN)
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("The authorization header is not `Bearer <token>`.", hint=LOG_IN)
    return token.strip()


def bearer_metadata(identity: Identity) -> list[tuple[str, str]]:
    """Metadata for a call to another service on the caller's behalf."""
    return [("authorization", f"Bearer {identity.token}")]


_current: ContextVar[Identity] = ContextVar("identity")


def current_identity() -> Identity:
    """Who made the call that is being handled. Raises Unauthenticated in a call that needs no token."""
    try:
        return _current.get()
    except LookupError as error:
        raise Unauthenticated("A token is needed.", hint=LOG_IN) from error


def set_current_identity(identity: Identity) -> None:
    """Notes who makes the call that is being handled; what serves the calls does this."""
    _current.set(identity)
