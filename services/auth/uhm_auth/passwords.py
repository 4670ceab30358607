"""Passwords: hashed and checked with bcrypt, in a few threads, because one takes a core for tens of milliseconds.

bcrypt reads 72 bytes at most and ends at a NUL. What it is given is therefore the base64 form of
HMAC-SHA256(key=salt, message=password): 44 characters, whatever the password. The salt in it keeps a plain SHA-256 of
the password, stolen elsewhere, from being of use here. What is stored is passlib's `bcrypt_sha256`, version 2:

    $bcrypt-sha256$v=2,t=2b,r=<cost>$<22 characters of salt>$<31 characters of checksum>
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

import bcrypt

from uhm_auth.errors import InvalidPassword, TooManyPasswords

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["MAX_PASSWORD_BYTES", "PasswordHasher", "check_password", "hash_password", "verify_password"]

MAX_PASSWORD_BYTES = 1024
SALT_CHARACTERS = 22
STORED_FORM = re.compile(r"\$bcrypt-sha256\$v=2,t=(2[ab]),r=(\d{1,2})\$([./A-Za-z0-9]{22})\$([./A-Za-z0-9]{31})")

Answer = TypeVar("Answer")


def check_password(password: str, *, min_length: int) -> None:
    """Raises InvalidPassword where a password may not be chosen. `min_length` is in characters."""
    if len(password) < min_length:
        wanted = "a password" if min_length == 1 else f"at least {min_length} characters"
        raise InvalidPassword(f"The password is too short: it has {len(password)} characters.", hint=f"Send {wanted}.")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise InvalidPassword(
            f"The password is too long: it has {len(password.encode())} bytes.",
            hint=f"It may have {MAX_PASSWORD_BYTES}.",
        )


def hash_password(password: str, *, cost: int) -> str:
    """The stored form of a password, with a new salt. Takes its time: 2^cost rounds."""
    config = bcrypt.gensalt(cost).decode()
    salt = config[-SALT_CHARACTERS:]
    checksum = bcrypt.hashpw(_prehash(password, salt), config.encode())[len(config) :].decode()
    return f"$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${checksum}"


def verify_password(password: str, stored: str) -> bool:
    """Whether a stored form is that of this password. Raises ValueError where it is no stored form."""
    if (match := STORED_FORM.fullmatch(stored)) is None:
        raise ValueError("not a bcrypt-sha256 hash of version 2")
    kind, cost, salt, checksum = match.groups()
    return bcrypt.checkpw(_prehash(password, salt), f"${kind}${int(cost):02}${salt}{checksum}".encode())


def _prehash(password: str, salt: str) -> bytes:
    return base64.b64encode(hmac.digest(salt.encode(), password.encode(), "sha256"))


class PasswordHasher:
    """Hashes and checks off the event loop, in `threads` at once; past `waiting` more raises TooManyPasswords.

    Use it as a context manager: the threads end with it.
    """

    def __init__(self, *, cost: int, threads: int, waiting: int) -> None:
        self._cost = cost
        self._capacity = threads + waiting
        self._held = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        self._nobodys = hash_password("", cost=cost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The stored form of a password."""
        return await self._in_thread(lambda: hash_password(password, cost=self._cost))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is right; for a user who does not exist, None, it takes as long and answers False."""
        right = await self._in_thread(lambda: verify_password(password, stored or self._nobodys))
        return right and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether a stored form was made with another cost than today's, and should be made anew."""
        return f",r={self._cost}$" not in stored

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        if self._held >= self._capacity:
            raise TooManyPasswords("Too many logins and registrations at once.", hint="Try again in a moment.")
        self._held += 1
        future = self._threads.submit(work)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def _release(self) -> None:
        self._held -= 1
