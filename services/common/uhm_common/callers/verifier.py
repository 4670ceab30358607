"""Good tokens told from others: access tokens (RFC 9068) and API keys, verified in every service.

Access tokens are JSON Web Tokens (RFC 7519, RFC 8725) signed with EdDSA (RFC 8037); nothing else is accepted. Claims:
`iss aud iat nbf exp jti sub identity fresh type sid role`, `type` being "access" or "refresh", which the header's `typ`
must repeat as "at+jwt" or "rt+jwt". Access tokens that were verified are kept until they expire: their signatures are
what takes time.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from uhm_common.callers.api_keys import ApiKeySource, RemoteApiKeys, is_api_key
from uhm_common.callers.identity import LOG_IN, USER, Identity, bearer_token
from uhm_common.callers.jwks import KeySource, auth_service_keys
from uhm_common.callers.jws import ALGORITHM, header_of, verified_payload
from uhm_common.callers.revocations import RevocationFollower, Revocations
from uhm_common.errors import Unauthenticated
from uhm_common.tls import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import jwt

    from uhm_common.settings import CommonSettings

__all__ = [
    "ACCESS",
    "ALGORITHM",
    "REFRESH",
    "TYPES",
    "RemoteVerification",
    "TokenVerifier",
    "remote_verification",
]

ACCESS, REFRESH = "access", "refresh"
TYPES: Final = {ACCESS: "at+jwt", REFRESH: "rt+jwt"}
NAMES: Final = {ACCESS: "an access", REFRESH: "a refresh"}
CLAIMS: Final = {"iss": str, "aud": str, "iat": int, "nbf": int, "exp": int, "jti": str, "sub": str, "type": str}
LEEWAY_SECONDS: Final = 5
MAX_KEY_ID_LENGTH: Final = 64
END_OF_TIME: Final = 1 << 40  # seconds since the epoch
CACHED_TOKENS: Final = 4096
RECONNECT_OPTIONS: Final = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    """An access token that was found good. `expires_at` is in seconds since the epoch."""

    identity: Identity
    key_id: str
    expires_at: float


class TokenVerifier:
    """Checks tokens: signature, times, issuer, audience, kind, and whether their session was ended."""

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        audience: str,
        leeway_seconds: float = LEEWAY_SECONDS,
        revocations: Revocations | None = None,
        api_keys: ApiKeySource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Without `api_keys`, no API key is good. `leeway_seconds` is how far clocks may be apart."""
        self.revocations = revocations if revocations is not None else Revocations()
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway_seconds
        self._api_keys = api_keys
        self._clock = clock
        self._cache: OrderedDict[str, _Verified] = OrderedDict()

    async def identity(self, metadata: Mapping[str, str]) -> Identity:
        """Who sent this metadata. Raises Unauthenticated, or Unavailable where nobody can say."""
        token = bearer_token(metadata)
        if is_api_key(token):
            return await self._api_key(token)
        identity = await self.cached(token) or await self._verified(token)
        await self.revocations.check(identity.session_id)
        return identity

    def knows(self, metadata: Mapping[str, str]) -> bool:
        """Whether its token was found good before, so that `identity` need not ask. Raises Unauthenticated."""
        return self.revocations.told and bearer_token(metadata) in self._cache

    async def claims(self, token: str, *, kind: str) -> dict[str, Any]:
        """The claims of a valid token of that kind, ACCESS or REFRESH. Raises Unauthenticated or Unavailable."""
        header = header_of(token)
        payload = verified_payload(token, await self._key(header))
        try:
            claims = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise _not_valid("it does not say anything in JSON") from error
        if not isinstance(claims, dict):
            raise _not_valid("it makes no claims")
        self._check(claims, kind=kind)
        _check_kind(header, claims, kind=kind)
        return claims

    def _check(self, claims: Mapping[str, Any], *, kind: str) -> None:
        """Raises Unauthenticated where claims are missing, malformed, not ours, or not good now (RFC 7519, 4.1)."""
        for name, wanted in CLAIMS.items():
            if name not in claims:
                raise _not_valid(f"it is missing the claim {name}")
            if type(claims[name]) is not wanted or (wanted is int and not 0 <= claims[name] < END_OF_TIME):
                raise _not_valid(f"its claim {name} is malformed")
        if claims["iss"] != self._issuer:
            raise _not_valid("somebody else issued it")
        if claims["aud"] != self._audience:
            raise _not_valid("it is for somebody else")
        now = self._clock()
        if claims["exp"] <= now - self._leeway:
            hint = "Get a new one with POST /api/v1/token/refresh." if kind == ACCESS else LOG_IN
            raise Unauthenticated(f"The {kind} token has expired.", hint=hint)
        if max(claims["nbf"], claims["iat"]) > now + self._leeway:
            raise _not_valid("its time has not come yet")

    async def _verified(self, token: str) -> Identity:
        claims = await self.claims(token, kind=ACCESS)
        identity = Identity(
            username=claims["sub"],
            session_id=str(claims.get("sid", "")),
            token=token,
            role=str(claims.get("role", USER)),
            fresh=claims.get("fresh") is True,
        )
        key_id = header_of(token)["kid"]
        self._cache[token] = _Verified(identity=identity, key_id=key_id, expires_at=claims["exp"] + self._leeway)
        if len(self._cache) > CACHED_TOKENS:
            self._cache.popitem(last=False)
        return identity

    async def cached(self, token: str) -> Identity | None:
        """The bearer of a token that was verified before, while it is good and its key is still one of ours."""
        found = self._cache.get(token)
        if found is None:
            return None
        if found.expires_at <= self._clock() or await self._keys.key(found.key_id) is None:
            self._cache.pop(token, None)
            return None
        if token in self._cache:  # still: others ran meanwhile
            self._cache.move_to_end(token)
        return found.identity

    async def _api_key(self, key: str) -> Identity:
        if self._api_keys is None:
            raise Unauthenticated("API keys are not taken here.", hint=LOG_IN)
        verified = await self._api_keys.verify(key)
        await self.revocations.check(verified.id)
        return Identity(
            username=verified.username,
            session_id=verified.id,
            token=key,
            role=verified.role,
            scopes=verified.scopes,
            expires_at=verified.expires_at,
        )

    async def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        key_id = header.get("kid")
        usable = isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID_LENGTH
        key = await self._keys.key(str(key_id)) if usable else None
        if key is None:
            raise Unauthenticated("The token is signed with a key that is not ours.", hint=LOG_IN)
        return key


def _not_valid(why: str) -> Unauthenticated:
    return Unauthenticated(f"The token is not valid: {why}.", hint=LOG_IN)


def _check_kind(header: Mapping[str, Any], claims: Mapping[str, Any], *, kind: str) -> None:
    """Raises Unauthenticated for a token of another kind: one that says so, or whose `typ` does."""
    if (said := claims["type"]) != kind:
        named = NAMES.get(said, "another")
        raise Unauthenticated(f"This is {named} token; {NAMES[kind]} token is needed.", hint=LOG_IN)
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") != TYPES[kind]:
        raise Unauthenticated(f"The token's typ is not {TYPES[kind]}.", hint=LOG_IN)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteVerification:
    """What a service that is not the auth service needs to know its callers."""

    verifier: TokenVerifier
    follower: RevocationFollower


@asynccontextmanager
async def remote_verification(settings: CommonSettings) -> AsyncIterator[RemoteVerification]:
    """A verifier that asks the auth service what it cannot know; its follower must run in the background."""
    async with open_channel(settings.auth_address, tls=settings.services_tls, options=RECONNECT_OPTIONS) as channel:
        revocations = Revocations(told=False)
        yield RemoteVerification(
            verifier=TokenVerifier(
                auth_service_keys(channel),
                issuer=settings.token_issuer,
                audience=settings.token_audience,
                leeway_seconds=settings.token_leeway_seconds,
                revocations=revocations,
                api_keys=RemoteApiKeys(channel, revocations),
            ),
            follower=RevocationFollower(channel, revocations),
        )
