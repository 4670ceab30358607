"""Sessions: what a login begins, a refresh goes on with, and a revocation ends.

A session's refresh token stays good until the session expires or is revoked. In a session that rotates, each use
replaces it and moves the expiry on, up to the longest that a session may last; an old one turning up again means that
two hold it, and ends the session (RFC 9700, section 4.14.2). An answer may be lost, and clients refresh twice at once:
so for a few seconds the one that was just replaced is answered with the very token that replaced it.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from uhm_auth.audit import Event, entry
from uhm_auth.errors import RefreshTokenReused, SessionEnded, SessionNotFound
from uhm_auth.stores.sessions import Session
from uhm_common.callers.calls import current_call
from uhm_common.paging import Listing, pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm_auth.audit import Entry
    from uhm_auth.revocation_feed import RevocationFeed
    from uhm_auth.stores.sessions import SessionStore
    from uhm_auth.stores.users import User
    from uhm_auth.tokens import Claims, Tokens
    from uhm_common.callers.identity import Identity
    from uhm_common.paging import PageTokens

__all__ = ["IssuedTokens", "Lifetimes", "Sessions"]

LOG_IN = "Log in again."
ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokens:
    """What a login or a refresh answers; `refresh` is None where the one that was sent stays good."""

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long things are good, in seconds."""

    refresh: int  # a session that nobody uses
    longest: int  # a session, however it is used
    grace: int  # a refresh token that was replaced


class Sessions:
    """Begins, continues, lists and ends sessions."""

    def __init__(
        self,
        store: SessionStore,
        tokens: Tokens,
        feed: RevocationFeed,
        *,
        lifetimes: Lifetimes,
        page_tokens: PageTokens,
        always_rotate: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With `always_rotate` every session rotates, however it began."""
        self._store = store
        self._tokens = tokens
        self._feed = feed
        self._lifetimes = lifetimes
        self._page_tokens = page_tokens
        self._always_rotate = always_rotate
        self._clock = clock

    async def begin(self, user: User, *, rotates: bool) -> IssuedTokens:
        """Begins a session of a user whose password was right; if they have too many, the one used longest ago ends.

        Raises WrongCredentials where the password was changed since.
        """
        now = self._now()
        call = current_call()
        session = Session(
            id=uuid.uuid4().hex,
            username=user.username,
            role=user.role,
            rotates=rotates or self._always_rotate,
            token_id=uuid.uuid4().hex,
            token_issued_at=now,
            created_at=now,
            used_at=now,
            expires_at=now + min(self._lifetimes.refresh, self._lifetimes.longest),
            address=call.address,
            user_agent=call.user_agent,
        )
        began = entry(Event.LOGIN_SUCCEEDED, username=user.username, actor=user.username, session=session.id)
        told = partial(_all_told, user.username, reason="limit")
        if await self._store.add(session, user=user, entry=began, told=told):
            await self._feed.refresh()
        return self._issued(session, fresh=True, refresh=True)

    async def begin_like(self, session_id: str, user: User) -> IssuedTokens:
        """Begins a session in place of one that has ended; like that one, it rotates or does not."""
        before = await self._store.session(session_id)
        return await self.begin(user, rotates=before is not None and before.rotates)

    async def refresh(self, refresh_token: str) -> IssuedTokens:
        """New tokens for a refresh token. Raises Unauthenticated, SessionEnded or RefreshTokenReused."""
        claims = await self._tokens.refresh_claims(refresh_token)
        now = self._now()
        session = await self._going_on(claims.session_id, now=now)
        if not (session.rotates or self._always_rotate):
            if not await self._store.use(session.id, now=now):
                raise _ended()
            return self._issued(session, fresh=False, refresh=False)
        return self._issued(await self._rotate(session, claims, now=now), fresh=False, refresh=True)

    async def end(self, token: str) -> None:
        """Ends the session of a token, access or refresh; harmless where it has ended. Raises Unauthenticated."""
        claims = await self._tokens.claims(token)
        await self._revoke(claims.session_id, _told(claims.username, claims.session_id, reason="logout"))

    async def end_everywhere(self, token: str) -> None:
        """Ends all sessions of the user of a token, access or refresh. Raises Unauthenticated or SessionEnded."""
        claims = await self._tokens.claims(token)
        now = self._now()
        username = (await self._going_on(claims.session_id, now=now)).username
        await self._store.revoke_everywhere(
            username,
            now=now,
            told=partial(_all_told, username, reason="logout"),
        )
        await self._feed.refresh()

    async def delete(self, caller: Identity, session_id: str) -> None:
        """Ends one of the caller's sessions. Raises SessionNotFound."""
        known = ID.fullmatch(session_id) is not None  # what is none may be a token: it is not repeated
        if not known or not await self._revoke(session_id, _told(caller.username, session_id, reason="deleted")):
            shown = f"{session_id!r}" if known else "of that id"
            raise SessionNotFound(f"You have no session {shown}, or it has ended.", hint="Look at the list.")

    async def page(self, caller: Identity, *, size: int, token: str) -> tuple[list[Session], str]:
        """Some of the caller's sessions, the newest first, and the token of the next page. Raises InvalidPageToken."""
        listing = Listing(name="sessions", owner=caller.username)
        after = self._page_tokens.read_pair(token, of=listing)
        found = await self._store.page(caller.username, after=after, limit=size + 1, now=self._now())
        return self._page_tokens.cut(found, size=size, of=listing, position=lambda last: pair(last.created_at, last.id))

    async def good_for(self, claims: Claims) -> bool:
        """Whether the session of a token goes on, and, of a refresh token, whether it is the one that is good."""
        session = await self._store.session(claims.session_id)
        if session is None or session.ended(now=self._now()):
            return False
        return claims.kind == "access" or not session.rotates or claims.token_id == session.token_id

    async def forget_expired(self) -> int:
        """Deletes what no token refers to any more; answers how many sessions that were."""
        return await self._store.delete_expired(now=self._now())

    async def _rotate(self, session: Session, claims: Claims, *, now: int) -> Session:
        """Replaces the refresh token that was sent, if it is the good one, and answers the session as it is then.

        Of those who send it at the same moment one replaces it, and the others get what that one got.
        """
        if claims.token_id == session.token_id:
            expires_at = min(now + self._lifetimes.refresh, session.created_at + self._lifetimes.longest)
            if expires_at <= now:  # sessions were longer when this one began
                raise _ended()
            token_id = uuid.uuid4().hex
            if await self._store.replace_token(session, token_id=token_id, now=now, expires_at=expires_at):
                return replace(session, token_id=token_id, token_issued_at=now, expires_at=expires_at)
            session = await self._going_on(session.id, now=now)
        since = now - (session.replaced_at or 0)
        if claims.token_id == session.replaced_id and since <= self._lifetimes.grace:
            return session
        await self._revoke(session.id, entry(Event.REFRESH_REUSED, username=session.username, session=session.id))
        raise RefreshTokenReused(
            "This refresh token was used before; the session is revoked.", hint=LOG_IN, session_id=session.id
        )

    async def _revoke(self, session_id: str, told: Entry) -> bool:
        """Ends a session of the user whom the log entry concerns; answers whether there was one that went on."""
        revoked = await self._store.revoke(session_id, username=told.username, now=self._now(), entry=told)
        if revoked:
            await self._feed.refresh()
        return revoked

    async def _going_on(self, session_id: str, *, now: int) -> Session:
        session = await self._store.session(session_id)
        if session is None or session.ended(now=now):
            raise _ended()
        return session

    def _issued(self, session: Session, *, fresh: bool, refresh: bool) -> IssuedTokens:
        access = self._tokens.access(session, fresh=fresh, now=self._now())
        return IssuedTokens(access=access, refresh=self._tokens.refresh(session) if refresh else None)

    def _now(self) -> int:
        return int(self._clock())


def _told(username: str, session_id: str, *, reason: str) -> Entry:
    return entry(Event.SESSION_REVOKED, username=username, actor=username, session=session_id, reason=reason)


def _all_told(username: str, count: int, *, reason: str) -> Entry:
    return entry(Event.SESSIONS_REVOKED, username=username, actor=username, count=count, reason=reason)


def _ended() -> SessionEnded:
    return SessionEnded("The session was ended or has expired.", hint=LOG_IN)
