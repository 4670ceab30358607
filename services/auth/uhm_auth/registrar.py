"""Registration: who may, with what, and who becomes an administrator.

The first user is an administrator. Where registration is not open, the first one needs the bootstrap code, which
whoever set up the system has put into its settings; it is good for nobody else. After that an invitation is needed, or
nobody can register. Where registration is open, an invitation can be used nevertheless, for the role in it.

Whether there is a user, which role the new one gets, and that an invitation is used up, is decided in one transaction
that no other registration passes.
"""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING

from uhm_auth.audit import Event, append, entry
from uhm_auth.codes import hash_code
from uhm_auth.credentials import check_username
from uhm_auth.errors import InvitationRefused, RegistrationClosed
from uhm_auth.policy import Registration
from uhm_auth.stores.users import taken
from uhm_common.callers.identity import ADMIN, USER
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_auth.audit import AuditLog
    from uhm_auth.passwords import PasswordHasher
    from uhm_auth.policy import Policy
    from uhm_auth.stores.invitations import Invitation, InvitationStore
    from uhm_auth.stores.users import UserStore

__all__ = ["Registrar"]

log = get_logger()


class Registrar:
    """Registers users. `bootstrap_code` is empty where there is none."""

    def __init__(
        self,
        users: UserStore,
        invitations: InvitationStore,
        *,
        policy: Policy,
        passwords: PasswordHasher,
        audit: AuditLog,
        bootstrap_code: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self._users = users
        self._invitations = invitations
        self._passwords = passwords
        self._audit = audit
        self._bootstrap_code = bootstrap_code
        self._clock = clock

    async def announce(self) -> None:
        """Warns, once at the start, of a policy that protects little, and of one that lets nobody in."""
        if self.policy.weak:
            log.warning(
                "password policy is weak",
                min_length=self.policy.password_min_length,
                min_score=self.policy.password_min_score,
                hint="Set UHM_PASSWORD_MIN_LENGTH and UHM_PASSWORD_MIN_SCORE.",
            )
        closed = self.policy.registration is not Registration.OPEN
        if closed and not self._bootstrap_code and await self._users.none():
            log.warning(
                "registration.impossible",
                registration=self.policy.registration.value,
                hint="Set UHM_BOOTSTRAP_INVITATION to a code with which the first user can register.",
            )

    async def register(self, username: str, password: str, *, invitation: str = "") -> None:
        """Registers a user; `invitation` is the code of one, or the bootstrap code.

        Raises InvalidUsername, InvalidPassword, UsernameTaken, RegistrationClosed or InvitationRefused. Without a good
        code, where one is needed, nothing else is told.
        """
        check_username(username)
        try:
            await self._register(username, password, code=invitation)
        except (RegistrationClosed, InvitationRefused) as error:
            told = entry(Event.USER_DENIED, username="", reason=error.reason)
            await self._audit.write_seldom(told, about=told.address)
            raise

    async def _register(self, username: str, password: str, *, code: str) -> None:
        invitation = await self._look_at(code)
        if await self._users.is_taken(username):
            raise taken(username)
        password_hash = await self._passwords.choose(password, username=username)
        now = int(self._clock())
        async with self._users.changing() as transaction:
            role = await self._admit(transaction, invitation, now=now)
            await self._users.add(transaction, username, password_hash=password_hash, role=role, now=now)
            used = {"invitation": invitation.id} if invitation else {}
            await append(transaction, entry(Event.USER_CREATED, username=username, role=role, **used))

    async def _look_at(self, code: str) -> Invitation | None:
        """The invitation of a code; None where none is used: nothing is needed, or it is the bootstrap code."""
        registration = self.policy.registration
        if registration is Registration.OPEN and not code:
            return None
        if registration is not Registration.OPEN and await self._users.none():
            if self._bootstrap_code and hmac.compare_digest(code.encode(), self._bootstrap_code.encode()):
                return None
            raise InvitationRefused(
                "The first user registers with the bootstrap invitation.", hint="Ask who set up the system for it."
            )
        if registration is Registration.CLOSED:
            raise RegistrationClosed("Registration is closed.", hint="Ask an administrator.")
        if not code:
            raise InvitationRefused("An invitation is needed to register.", hint="Ask an administrator for one.")
        invitation = await self._invitations.with_code(hash_code(code), now=int(self._clock()))
        if invitation is None:
            raise _refused()
        return invitation

    async def _admit(self, transaction: AsyncSession, invitation: Invitation | None, *, now: int) -> str:
        """Uses the invitation up, and answers the role of the new user. Raises InvitationRefused."""
        first = not await self._users.anyone(transaction)
        if invitation is not None:
            if not await self._invitations.use(transaction, invitation, now=now):
                raise _refused()
            return ADMIN if first else invitation.role
        if not first and self.policy.registration is not Registration.OPEN:
            raise _refused()  # the bootstrap code, but somebody else was the first
        return ADMIN if first else USER


def _refused() -> InvitationRefused:
    return InvitationRefused(
        "The invitation is not good.",
        hint="It was withdrawn, was used, or has expired; ask an administrator for another.",
    )
