"""New passwords for who has one, and for who has forgotten it. Each ends all of the user's sessions.

Who has forgotten the password gets a code from an administrator, which sets another, once. Whether the name or the code
was wrong is not told, and guesses are counted like those of passwords.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from uhm_auth.audit import Event, append, entry
from uhm_auth.codes import DAY_SECONDS, hash_code, lifetime, new_code
from uhm_auth.credentials import is_username
from uhm_auth.errors import InvalidPassword, UserNotFound, WrongPassword, WrongResetCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm_auth.audit import AuditLog
    from uhm_auth.credentials import Credentials
    from uhm_auth.grants import Grants
    from uhm_auth.passwords import PasswordHasher
    from uhm_auth.sessions import IssuedTokens, Sessions
    from uhm_auth.stores.password_resets import PasswordResetStore
    from uhm_auth.stores.users import UserStore
    from uhm_auth.throttle import Throttle
    from uhm_common.callers.identity import Identity

__all__ = ["NewReset", "PasswordChanges"]

DEFAULT_SECONDS = DAY_SECONDS
LONGEST_SECONDS = 30 * DAY_SECONDS
NOBODYS = hash_code(new_code())
"""What a code is compared with where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReset:
    """A code, which is not known afterwards, and when it ends, in seconds since the epoch."""

    code: str = field(repr=False)
    expires_at: int


class PasswordChanges:
    """Changes and resets passwords."""

    def __init__(
        self,
        users: UserStore,
        resets: PasswordResetStore,
        *,
        grants: Grants,
        sessions: Sessions,
        credentials: Credentials,
        passwords: PasswordHasher,
        throttle: Throttle,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._resets = resets
        self._grants = grants
        self._sessions = sessions
        self._credentials = credentials
        self._passwords = passwords
        self._throttle = throttle
        self._audit = audit
        self._clock = clock

    async def change(self, caller: Identity, *, current: str, new: str) -> IssuedTokens:
        """Gives the caller another password and a new session, which rotates if the one that asks does.

        Raises TooManyAttempts, WrongPassword or InvalidPassword.
        """
        user = await self._credentials.confirm(caller.username, current)
        if new == current:
            raise InvalidPassword("The new password is the current one.", hint="Choose another.")
        password_hash = await self._passwords.choose(new, username=user.username)
        now = int(self._clock())
        async with self._users.changing() as transaction:
            now_so = await self._users.find(transaction, user.username)
            if now_so is None or now_so.password_hash != user.password_hash:
                raise WrongPassword("The password was changed meanwhile.", hint="Log in with the new one.")
            await self._users.set_password(transaction, user, password_hash)
            await self._grants.end_sessions(transaction, user, now=now, reason="password")
            await self._resets.drop(transaction, user)
            told = entry(Event.PASSWORD_CHANGED, username=user.username, actor=user.username)
            await append(transaction, told)
        await self._grants.announce()
        return await self._sessions.begin_like(caller.session_id, replace(user, password_hash=password_hash))

    async def create_reset(self, username: str, *, ttl: int | None, actor: str) -> NewReset:
        """Makes a code with which a user sets another password; the one before is not good any more.

        Raises InvalidTtl, NoAdministrator or UserNotFound.
        """
        seconds = lifetime(ttl, default=DEFAULT_SECONDS, longest=LONGEST_SECONDS)
        now = int(self._clock())
        made = NewReset(code=new_code(), expires_at=now + seconds)
        async with self._users.changing() as transaction:
            await self._users.check_administers(transaction, actor)
            user = await self._users.find(transaction, username) if is_username(username) else None
            if user is None:
                raise UserNotFound(f"There is no user {username[:80]!r}.")
            await self._resets.put(
                transaction,
                user,
                code_hash=hash_code(made.code),
                creator=actor,
                now=now,
                expires_at=made.expires_at,
            )
            await append(transaction, entry(Event.PASSWORD_RESET_CREATED, username=username, actor=actor))
        return made

    async def reset(self, username: str, *, code: str, new: str) -> None:
        """Sets a password with a code. Raises TooManyAttempts, WrongResetCode or InvalidPassword.

        A code is still good after InvalidPassword.
        """
        async with self._throttle.attempt(username):
            if not await self._is_good(username, code):
                raise _wrong_code()
        password_hash = await self._passwords.choose(new, username=username)
        now = int(self._clock())
        async with self._users.changing() as transaction:
            user = await self._users.find(transaction, username)
            if user is None or not await self._resets.use(transaction, user, code_hash=hash_code(code), now=now):
                raise _wrong_code()
            await self._users.set_password(transaction, user, password_hash)
            await self._grants.end_sessions(transaction, user, now=now, reason="password")
            await append(transaction, entry(Event.PASSWORD_RESET, username=username))
        await self._grants.announce()

    async def forget_expired(self) -> None:
        """Deletes codes that nobody can use any more."""
        await self._resets.delete_expired(now=int(self._clock()))

    async def _is_good(self, username: str, code: str) -> bool:
        """Whether a user has that code; otherwise notes the attempt."""
        kept = await self._resets.code_hash(username, now=int(self._clock())) if is_username(username) else None
        if hmac.compare_digest(hash_code(code), kept or NOBODYS):
            return True
        known = username if kept else ""
        await self._audit.write(entry(Event.PASSWORD_RESET_FAILED, username=known))
        return False


def _wrong_code() -> WrongResetCode:
    return WrongResetCode(
        "The username or the code is wrong, or the code was used or has expired.",
        hint="Ask an administrator for another.",
    )
