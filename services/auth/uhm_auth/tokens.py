"""Tokens: JSON Web Tokens (RFC 7519) signed with EdDSA (RFC 8037).

Claims: `iss aud iat nbf exp jti sub identity fresh type sid role`. `sub` and `identity` are the username, `fresh` is
whether a password was given for this very token, `type` is "access" or "refresh", `sid` is the session. The header's
`typ` is "at+jwt" (RFC 9068) or "rt+jwt", so that neither kind is taken for the other, whatever claims are looked at.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import jwt

from uhm_common.callers.jws import ALGORITHM, header_of
from uhm_common.callers.verifier import ACCESS, REFRESH, TYPES

if TYPE_CHECKING:
    from uhm_auth.keys import SigningKeys
    from uhm_auth.stores.sessions import Session
    from uhm_common.callers.verifier import TokenVerifier

__all__ = ["Claims", "TokenKind", "Tokens"]


class TokenKind(StrEnum):
    """What a token is good for."""

    ACCESS = ACCESS
    REFRESH = REFRESH


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a valid token says. Times are in seconds since the epoch."""

    kind: TokenKind
    token_id: str
    issuer: str
    audience: str
    username: str
    session_id: str
    issued_at: int
    not_before: int
    expires_at: int

    @classmethod
    def of(cls, claims: dict[str, Any], *, kind: TokenKind) -> Claims:
        """From the claims of a token that was verified."""
        return cls(
            kind=kind,
            token_id=claims["jti"],
            issuer=claims["iss"],
            audience=claims["aud"],
            username=claims["sub"],
            session_id=str(claims.get("sid", "")),
            issued_at=int(claims["iat"]),
            not_before=int(claims["nbf"]),
            expires_at=int(claims["exp"]),
        )


class Tokens:
    """Signs tokens, and checks its own. Lifetimes are in seconds."""

    def __init__(
        self, keys: SigningKeys, verifier: TokenVerifier, *, issuer: str, audience: str, access_seconds: int
    ) -> None:
        self._keys = keys
        self._verifier = verifier
        self._issuer = issuer
        self._audience = audience
        self.access_seconds = access_seconds

    def access(self, session: Session, *, fresh: bool, now: int) -> str:
        """A new access token of a session, which does not outlive it."""
        expires_at = min(now + self.access_seconds, session.expires_at)
        return self._sign(
            TokenKind.ACCESS, session, token_id=uuid.uuid4().hex, issued_at=now, expires_at=expires_at, fresh=fresh
        )

    def refresh(self, session: Session) -> str:
        """The refresh token of a session that is good now: each time the same one."""
        return self._sign(
            TokenKind.REFRESH,
            session,
            token_id=session.token_id,
            issued_at=session.token_issued_at,
            expires_at=session.expires_at,
            fresh=False,
        )

    async def refresh_claims(self, token: str) -> Claims:
        """What a refresh token says. Raises Unauthenticated where it is not valid, or is not a refresh token."""
        return Claims.of(await self._verifier.claims(token, kind=REFRESH), kind=TokenKind.REFRESH)

    async def claims(self, token: str) -> Claims:
        """What a token of either kind says. Raises Unauthenticated where it is not valid."""
        kind = _claimed_kind(token)
        return Claims.of(await self._verifier.claims(token, kind=kind), kind=kind)

    def _sign(
        self, kind: TokenKind, session: Session, *, token_id: str, issued_at: int, expires_at: int, fresh: bool
    ) -> str:
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": expires_at,
            "jti": token_id,
            "sub": session.username,
            "identity": session.username,
            "fresh": fresh,
            "type": kind.value,
            "sid": session.id,
            "role": session.role,
        }
        signing = self._keys.signing
        headers = {"kid": signing.id, "typ": TYPES[kind]}
        return jwt.encode(claims, signing.private, algorithm=ALGORITHM, headers=headers)


def _claimed_kind(token: str) -> TokenKind:
    """The kind that a token says it is, before anything about it was checked. Raises Unauthenticated."""
    return TokenKind.REFRESH if header_of(token).get("typ") == TYPES[REFRESH] else TokenKind.ACCESS
