"""Sessions: what a login begins, a refresh goes on with, and a revocation ends.

A session's refresh token stays good until the session expires or is revoked. In a session that rotates, each use
replaces it and moves the expiry on; an old one turning up again means that two hold it, and ends the session (RFC 9700,
section 4.14.2). Access tokens that are out stay good until they expire: services verify them without asking here.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uhm_auth.errors import RefreshTokenReused, SessionEnded
from uhm_auth.store import Session
from uhm_auth.tokens import TokenKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm_auth.store import AuthStore, User
    from uhm_auth.tokens import RefreshClaims, Tokens

__all__ = ["IssuedTokens", "Sessions"]

LOG_IN = "Log in again."


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokens:
    """What a login or a refresh answers; `refresh` is None where the one that was sent stays good."""

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)


class Sessions:
    """Begins, continues and ends sessions."""

    def __init__(self, store: AuthStore, tokens: Tokens, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._tokens = tokens
        self._clock = clock

    async def begin(self, user: User, *, rotates: bool) -> IssuedTokens:
        """Begins a session of a user whose password was right."""
        now = int(self._clock())
        session_id = uuid.uuid4().hex
        refresh = self._tokens.sign(
            TokenKind.REFRESH, username=user.username, session_id=session_id, fresh=False, now=now
        )
        session = Session(
            id=session_id,
            username=user.username,
            rotates=rotates,
            token_hash=_hash(refresh.id),
            expires_at=refresh.expires_at,
        )
        await self._store.add_session(session, user_id=user.id, now=now)
        return IssuedTokens(access=self._access(session, now=now, fresh=True), refresh=refresh.text)

    async def refresh(self, refresh_token: str) -> IssuedTokens:
        """New tokens for a refresh token. Raises Unauthenticated, SessionEnded or RefreshTokenReused."""
        claims = await self._tokens.refresh_claims(refresh_token)
        now = int(self._clock())
        session = await self._store.session(claims.session_id)
        if session is None or session.ended(now=now):
            raise SessionEnded("The session was ended or has expired.", hint=LOG_IN)
        replacement = await self._rotate(session, claims, now=now) if session.rotates else None
        return IssuedTokens(access=self._access(session, now=now, fresh=False), refresh=replacement)

    async def end(self, token: str) -> None:
        """Ends the session of a token, access or refresh; harmless where it has ended. Raises Unauthenticated."""
        session_id = await self._tokens.session_id(token)
        await self._store.revoke_session(session_id, now=int(self._clock()))

    async def forget_expired(self) -> int:
        """Deletes what no token refers to any more; answers how many sessions that were."""
        return await self._store.delete_expired_sessions(now=int(self._clock()))

    async def _rotate(self, session: Session, claims: RefreshClaims, *, now: int) -> str:
        """Replaces the refresh token that was sent, if it is the good one; of two at the same moment one succeeds."""
        replacement = self._tokens.sign(
            TokenKind.REFRESH, username=session.username, session_id=session.id, fresh=False, now=now
        )
        replaced = await self._store.replace_token(
            session.id,
            old_hash=_hash(claims.token_id),
            new_hash=_hash(replacement.id),
            expires_at=replacement.expires_at,
        )
        if not replaced:
            await self._store.revoke_session(session.id, now=now)
            raise RefreshTokenReused(
                "This refresh token was used before; the session is revoked.", hint=LOG_IN, session_id=session.id
            )
        return replacement.text

    def _access(self, session: Session, *, now: int, fresh: bool) -> str:
        return self._tokens.sign(
            TokenKind.ACCESS, username=session.username, session_id=session.id, fresh=fresh, now=now
        ).text


def _hash(token_id: str) -> str:
    """What is stored of a refresh token's `jti`: who reads the database cannot tell which token is good."""
    return hashlib.sha256(token_id.encode()).hexdigest()
