"""What was handed out to a user, or by one, with which somebody can act: sessions, API keys, codes. And how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uhm_auth.audit import Event, append, entry
from uhm_auth.stores.api_keys import revoke_keys_of, suspend_keys_of
from uhm_common.callers.identity import ADMIN

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.revocation_feed import RevocationFeed
    from uhm_auth.stores.invitations import InvitationStore
    from uhm_auth.stores.password_resets import PasswordResetStore
    from uhm_auth.stores.sessions import SessionStore
    from uhm_auth.stores.users import User

__all__ = ["Grants"]


class Grants:
    """Ends grants in the transaction that takes the right to them."""

    def __init__(
        self,
        sessions: SessionStore,
        invitations: InvitationStore,
        password_resets: PasswordResetStore,
        *,
        feed: RevocationFeed,
    ) -> None:
        self._sessions = sessions
        self._invitations = invitations
        self._password_resets = password_resets
        self._feed = feed

    async def end(self, transaction: AsyncSession, before: User, after: User | None, *, now: int) -> None:
        """Ends what a user has no right to any more, being changed so, or deleted."""
        await self.end_sessions(transaction, before, now=now, reason="deleted" if after is None else "updated")
        if after is None:
            await revoke_keys_of(transaction, before.id, now=now)
            await self._password_resets.drop(transaction, before)
        elif after.disabled or (before.role == ADMIN and after.role != ADMIN):
            await suspend_keys_of(transaction, before.id, now=now)
        if before.administers and not (after and after.administers):
            await self._invitations.withdraw_all(transaction, creator=before.username)
            await self._password_resets.withdraw_all(transaction, creator=before.username)

    async def end_sessions(self, transaction: AsyncSession, user: User, *, now: int, reason: str) -> None:
        """Ends all sessions of a user."""
        if count := await self._sessions.revoke_all(transaction, user.id, now=now):
            told = entry(Event.SESSIONS_REVOKED, username=user.username, count=count, reason=reason)
            await append(transaction, told)

    async def announce(self) -> None:
        """Has this process refuse at once what was ended; call it after the commit. The others follow by themselves."""
        await self._feed.refresh()
