"""Invitations: with the code of one, one user can register, and has the role that it says."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uhm_auth.audit import Event, append, entry
from uhm_auth.codes import DAY_SECONDS, hash_code, lifetime, new_code
from uhm_auth.errors import InvalidRole, InvitationNotFound, NobodyRegisters
from uhm_auth.policy import Registration
from uhm_auth.stores.invitations import Invitation
from uhm_common.callers.identity import ADMIN, USER
from uhm_common.paging import Listing, page_size, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uhm_auth.policy import Policy
    from uhm_auth.stores.invitations import InvitationStore
    from uhm_auth.stores.users import UserStore
    from uhm_common.paging import PageTokens

__all__ = ["InvitationPage", "Invitations", "NewInvitation", "check_role"]

DEFAULT_SECONDS = 7 * DAY_SECONDS
LONGEST_SECONDS = 90 * DAY_SECONDS
LISTING = Listing(name="invitations")
ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvitation:
    """An invitation with its code, which is not known afterwards."""

    invitation: Invitation
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationPage:
    """A part of the list; `next_token` is empty at its end."""

    invitations: Sequence[Invitation]
    next_token: str


class Invitations:
    """Makes, lists and withdraws invitations, for administrators. Using one is `uhm_auth.registrar`'s."""

    def __init__(
        self,
        store: InvitationStore,
        users: UserStore,
        *,
        policy: Policy,
        page_tokens: PageTokens,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._users = users
        self._policy = policy
        self._page_tokens = page_tokens
        self._clock = clock

    async def create(self, *, role: str, ttl: int | None, creator: str) -> NewInvitation:
        """Makes an invitation that is good for `ttl` seconds.

        Raises InvalidRole, InvalidTtl, NobodyRegisters or NoAdministrator.
        """
        check_role(role)
        seconds = lifetime(ttl, default=DEFAULT_SECONDS, longest=LONGEST_SECONDS)
        if self._policy.registration is Registration.CLOSED:
            raise NobodyRegisters(
                "Registration is closed, so nobody could use an invitation.", hint="Set UHM_REGISTRATION=invitation."
            )
        now = int(self._clock())
        invitation = Invitation(
            id=uuid.uuid4().hex, role=role, creator=creator, created_at=now, expires_at=now + seconds
        )
        code = new_code()
        told = entry(Event.INVITATION_CREATED, username=creator, actor=creator, invitation=invitation.id, role=role)
        async with self._users.changing() as transaction:
            await self._users.check_administers(transaction, creator)
            await self._store.add(transaction, invitation, code_hash=hash_code(code))
            await append(transaction, told)
        return NewInvitation(invitation=invitation, code=code)

    async def page(self, *, size: int, token: str) -> InvitationPage:
        """Those that are good, the newest first. Raises InvalidArgument or InvalidPageToken."""
        limit = page_size(size)
        before = self._page_tokens.read_pair(token, of=LISTING)
        found = await self._store.page(before=before, limit=limit + 1, now=int(self._clock()))
        shown, more = self._page_tokens.cut(
            found, size=limit, of=LISTING, position=lambda last: pair(last.created_at, last.id)
        )
        return InvitationPage(invitations=shown, next_token=more)

    async def delete(self, invitation_id: str, *, actor: str) -> None:
        """Withdraws an invitation. Raises InvitationNotFound."""
        known = ID.fullmatch(invitation_id) is not None  # what is none may be a code: it is not repeated
        told = entry(Event.INVITATION_DELETED, username=actor, actor=actor, invitation=invitation_id)
        if not known or not await self._store.delete(invitation_id, now=int(self._clock()), entry=told):
            shown = f"{invitation_id!r}" if known else "of that id"
            raise InvitationNotFound(
                f"There is no invitation {shown}.", hint="It was withdrawn, was used, or has expired."
            )

    async def forget_expired(self) -> None:
        """Deletes what nobody can use any more."""
        await self._store.delete_expired(now=int(self._clock()))


def check_role(role: str) -> None:
    """Raises InvalidRole for what is no role."""
    if role not in {USER, ADMIN}:
        raise InvalidRole(f"{role[:80]!r} is not a role.", hint=f'It is "{USER}" or "{ADMIN}".')
