"""What the auth service does: registers users and lets them in."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from uhm_auth.errors import InvalidUsername, UsernameTaken, WrongCredentials
from uhm_auth.passwords import check_password

if TYPE_CHECKING:
    from uhm_auth.passwords import PasswordHasher
    from uhm_auth.sessions import IssuedTokens, Sessions
    from uhm_auth.store import AuthStore, User

__all__ = ["AuthService"]

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class AuthService:
    """Users, their passwords, and their sessions."""

    def __init__(
        self,
        store: AuthStore,
        sessions: Sessions,
        *,
        passwords: PasswordHasher,
        password_min_length: int,
        always_rotate: bool,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._passwords = passwords
        self._password_min_length = password_min_length
        self._always_rotate = always_rotate

    async def register(self, username: str, password: str) -> None:
        """Registers a user. Raises InvalidUsername, InvalidPassword or UsernameTaken."""
        if not USERNAME.fullmatch(username):
            raise InvalidUsername(
                f"{username[:80]!r} cannot be a username.",
                hint="It has 1 to 64 characters: a letter or a digit, then letters, digits, and any of . _ - @ +",
            )
        check_password(password, min_length=self._password_min_length)
        if await self._store.user(username) is not None:
            raise UsernameTaken(
                f"The username {username!r} is taken.", hint="Choose another, or log in.", username=username
            )
        await self._store.add_user(username, await self._passwords.hash(password), now=int(time.time()))

    async def log_in(self, username: str, password: str, *, rotate: bool) -> IssuedTokens:
        """Begins a session. Raises WrongCredentials, which takes as long whether or not the user exists."""
        user = await self._store.user(username) if USERNAME.fullmatch(username) else None
        right = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not right:
            raise WrongCredentials(
                "The username or the password is wrong.", hint="Register with `uhm register` or /api/v1/user/create."
            )
        await self._renew_hash(user, password)
        return await self._sessions.begin(user, rotates=rotate or self._always_rotate)

    async def refresh(self, refresh_token: str) -> IssuedTokens:
        """New tokens for a refresh token; see Sessions.refresh."""
        return await self._sessions.refresh(refresh_token)

    async def revoke(self, token: str) -> None:
        """Ends the session of a token; see Sessions.end."""
        await self._sessions.end(token)

    async def _renew_hash(self, user: User, password: str) -> None:
        """Stores the password's hash anew where the cost was changed; a login is the only time to do that."""
        if self._passwords.is_outdated(user.password_hash):
            await self._store.set_password_hash(user.id, await self._passwords.hash(password))
