"""Logging in, and what the tokens that come of it are good for (RFC 7662)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_common.callers.api_keys import is_api_key
from uhm_common.errors import Unauthenticated

if TYPE_CHECKING:
    from uhm_auth.credentials import Credentials
    from uhm_auth.sessions import IssuedTokens, Sessions
    from uhm_auth.tokens import Claims, Tokens
    from uhm_common.callers.api_keys import ApiKeySource, VerifiedKey
    from uhm_common.callers.identity import Identity

__all__ = ["Introspection", "Logins"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """What is to be known of a token that is good: its claims, or, of an API key, whose it is."""

    username: str
    claims: Claims | None = None
    api_key: VerifiedKey | None = None


class Logins:
    """Lets users in, and tells what their tokens are good for."""

    def __init__(
        self,
        credentials: Credentials,
        sessions: Sessions,
        tokens: Tokens,
        api_keys: ApiKeySource,
    ) -> None:
        self._credentials = credentials
        self._sessions = sessions
        self._tokens = tokens
        self._api_keys = api_keys

    async def log_in(self, username: str, password: str, *, rotate: bool) -> IssuedTokens:
        """Begins a session. Raises TooManyAttempts, WrongCredentials or UserDisabled; see Credentials.check."""
        user = await self._credentials.check(username, password)
        return await self._sessions.begin(user, rotates=rotate)

    async def introspect(self, token: str, *, caller: Identity) -> Introspection | None:
        """What a token or an API key is good for; None for nothing, and for one that is none of the caller's business.

        Raises Unavailable.
        """
        try:
            found = await self._introspect(token)
        except Unauthenticated:
            return None
        return found if found is not None and (caller.is_admin or found.username == caller.username) else None

    async def _introspect(self, token: str) -> Introspection | None:
        if is_api_key(token):
            key = await self._api_keys.verify(token)
            return Introspection(username=key.username, api_key=key)
        claims = await self._tokens.claims(token)
        return Introspection(username=claims.username, claims=claims) if await self._sessions.good_for(claims) else None
