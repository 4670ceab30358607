"""Who somebody is by name and password, and nothing that tells a stranger more than yes or no.

A name that nobody has, a wrong password, a user who was deleted: all get the same answer after the same work, a bcrypt
of today's cost. That a user is disabled is told only to who knows the password. Failures are counted against guessing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from uhm_auth.audit import Event, entry
from uhm_auth.errors import InvalidUsername, UserDisabled, WrongCredentials, WrongPassword

if TYPE_CHECKING:
    from uhm_auth.audit import AuditLog
    from uhm_auth.passwords import PasswordHasher
    from uhm_auth.stores.users import User, UserStore
    from uhm_auth.throttle import Throttle

__all__ = ["Credentials", "check_username", "is_username"]

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def is_username(name: str) -> bool:
    """Whether anybody could have that name."""
    return USERNAME.fullmatch(name) is not None


def check_username(name: str) -> None:
    """Raises InvalidUsername for a name that nobody can have, without repeating it: it may be a password."""
    if not is_username(name):
        raise InvalidUsername(
            "That cannot be a username.",
            hint="It has 1 to 64 characters: a letter or a digit, then letters, digits, and any of . _ - @ +",
        )


class Credentials:
    """Checks passwords; nothing else does."""

    def __init__(self, users: UserStore, *, passwords: PasswordHasher, throttle: Throttle, audit: AuditLog) -> None:
        self._users = users
        self._passwords = passwords
        self._throttle = throttle
        self._audit = audit

    async def check(self, username: str, password: str) -> User:
        """The user who logs in with this. Raises TooManyAttempts, WrongCredentials or UserDisabled.

        Whoever begins something with the answer asks `stores.users.still_so` in the transaction that begins it.
        """
        async with self._throttle.attempt(username):
            user = await self._match(username, password, failure=Event.LOGIN_FAILED)
            if user is None:
                raise WrongCredentials(
                    "The username or the password is wrong.",
                    hint="Register with `uhm register` or /api/v1/user/create.",
                )
        if user.disabled:
            await self._audit.write(entry(Event.LOGIN_FAILED, username=user.username, reason="disabled"))
            raise UserDisabled("This user is disabled.", hint="Ask an administrator.")
        return await self._with_todays_hash(user, password)

    async def confirm(self, username: str, password: str) -> User:
        """A user who has logged in, and gives the password once more. Raises TooManyAttempts or WrongPassword."""
        async with self._throttle.attempt(username):
            user = await self._match(username, password, failure=Event.PASSWORD_REFUSED)
            if user is None:
                raise WrongPassword("The password is wrong.", hint="Send the one that you log in with.")
        return user

    async def _match(self, username: str, password: str, *, failure: Event) -> User | None:
        """The user whose password it is, or None, after as much work."""
        user = await self._users.user(username) if is_username(username) else None
        if await self._passwords.verify(password, user.password_hash if user else None):
            return user
        # Somebody may have typed a password where the username belongs: what nobody is called is not noted.
        known = user.username if user else ""
        await self._audit.write(entry(failure, username=known, reason="password" if user else "username"))
        return None

    async def _with_todays_hash(self, user: User, password: str) -> User:
        """Stores the password's hash anew where the cost was changed; a login is the only time to do that."""
        if not self._passwords.is_outdated(user.password_hash):
            return user
        renewed = await self._passwords.hash(password)
        await self._users.renew_hash(user, renewed)
        return replace(user, password_hash=renewed)
