"""Tokens: JSON Web Tokens (RFC 7519) signed with EdDSA (RFC 8037).

Claims: `iss aud iat nbf exp jti sub identity fresh type sid`. `sub` and `identity` are the username, `fresh` is whether
a password was given for this very token, `type` is "access" or "refresh", `sid` is the session.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import jwt

from uhm_common.identity import ALGORITHM, TokenVerifier

if TYPE_CHECKING:
    from uhm_auth.keys import KeyRing

__all__ = ["RefreshClaims", "Token", "TokenKind", "Tokens"]


class TokenKind(StrEnum):
    """What a token is good for."""

    ACCESS = "access"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that was signed, and what the session store notes of it."""

    text: str = field(repr=False)
    id: str
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshClaims:
    """What a valid refresh token says."""

    token_id: str
    session_id: str


class Tokens:
    """Signs tokens and checks its own. Lifetimes are in seconds."""

    def __init__(self, keys: KeyRing, *, issuer: str, audience: str, access_seconds: int, refresh_seconds: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetimes = {TokenKind.ACCESS: access_seconds, TokenKind.REFRESH: refresh_seconds}
        self.verifier = TokenVerifier(keys, issuer=issuer, audience=audience)

    def sign(self, kind: TokenKind, *, username: str, session_id: str, fresh: bool, now: int) -> Token:
        """A new token that is good from now on."""
        expires_at = now + self._lifetimes[kind]
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "nbf": now,
            "exp": expires_at,
            "jti": uuid.uuid4().hex,
            "sub": username,
            "identity": username,
            "fresh": fresh,
            "type": kind.value,
            "sid": session_id,
        }
        signing = self._keys.signing
        text = jwt.encode(claims, signing.private, algorithm=ALGORITHM, headers={"kid": signing.key_id})
        return Token(text=text, id=str(claims["jti"]), expires_at=expires_at)

    async def refresh_claims(self, token: str) -> RefreshClaims:
        """What a refresh token says. Raises Unauthenticated where it is not valid, or is not a refresh token."""
        claims = await self.verifier.claims(token, kind=TokenKind.REFRESH)
        return RefreshClaims(token_id=claims["jti"], session_id=str(claims.get("sid", "")))

    async def session_id(self, token: str) -> str:
        """The session of a token of either kind. Raises Unauthenticated where it is not valid."""
        claims = await self.verifier.claims(token, kind=_claimed_kind(token))
        return str(claims.get("sid", ""))


def _claimed_kind(token: str) -> TokenKind:
    """The kind that a token says it is, before anything about it was checked."""
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return TokenKind.ACCESS
    return TokenKind.REFRESH if claims.get("type") == TokenKind.REFRESH else TokenKind.ACCESS
