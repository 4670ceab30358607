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

from uhm_auth.errors import TooManyPasswords
from uhm_auth.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["PasswordHasher", "hash_password", "nobodys_hash", "verify_in_time", "verify_password"]

SALT_CHARACTERS = 22
CHECKSUM_CHARACTERS = 31
STORED_FORM = re.compile(r"\$bcrypt-sha256\$v=2,t=(2[ab]),r=(\d{1,2})\$([./A-Za-z0-9]{22})\$([./A-Za-z0-9]{31})")

ANYTHING = Policy()

Answer = TypeVar("Answer")


def hash_password(password: str, *, cost: int) -> str:
    """The stored form of a password, with a new salt. Takes its time: 2^cost rounds."""
    config = bcrypt.gensalt(cost).decode()
    salt = config[-SALT_CHARACTERS:]
    checksum = bcrypt.hashpw(_prehash(password, salt), config.encode())[len(config) :].decode()
    return f"$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${checksum}"


def verify_password(password: str, stored: str) -> bool:
    """Whether a stored form is that of this password. Raises ValueError where it is no stored form."""
    kind, cost, salt, checksum = _parts(stored)
    return bcrypt.checkpw(_prehash(password, salt), f"${kind}${int(cost):02}${salt}{checksum}".encode())


def verify_in_time(password: str, stored: str, *, cost: int) -> bool:
    """Like `verify_password`; where it is wrong, it has taken 2^cost rounds, though the stored form took fewer.

    The rounds that lack are those of one bcrypt of each cost between, since 2^n + 2^n + 2^(n+1) + … + 2^(m-1) = 2^m.
    """
    right = verify_password(password, stored)
    if not right:
        for between in range(int(_parts(stored)[1]), cost):
            verify_password(password, nobodys_hash(between))
    return right


def nobodys_hash(cost: int) -> str:
    """A stored form that takes as long as any other of that cost, and is of no password that anybody knows."""
    return f"$bcrypt-sha256$v=2,t=2b,r={cost}${'.' * SALT_CHARACTERS}${'.' * CHECKSUM_CHARACTERS}"


def _parts(stored: str) -> tuple[str, ...]:
    """Kind, cost, salt and checksum. Raises ValueError."""
    if (match := STORED_FORM.fullmatch(stored)) is None:
        raise ValueError("not a bcrypt-sha256 hash of version 2")
    return match.groups()


def _prehash(password: str, salt: str) -> bytes:
    return base64.b64encode(hmac.digest(salt.encode(), password.encode(), "sha256"))


class PasswordHasher:
    """Hashes and checks off the event loop, in `threads` at once; past `waiting` more raises TooManyPasswords.

    Use it as a context manager: the threads end with it.
    """

    def __init__(self, *, cost: int, threads: int, waiting: int, policy: Policy = ANYTHING) -> None:
        self._cost = cost
        self._policy = policy
        self._capacity = threads + waiting
        self._held = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The stored form of a password."""
        return await self._in_thread(lambda: hash_password(password, cost=self._cost))

    async def choose(self, password: str, *, username: str) -> str:
        """The stored form of a password that a user has chosen. Raises InvalidPassword where the policy forbids it."""

        def chosen() -> str:
            self._policy.check(password, username=username)
            return hash_password(password, cost=self._cost)

        return await self._in_thread(chosen)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is right; for a user who does not exist, None, it takes as long and answers False."""
        looked_at = stored or nobodys_hash(self._cost)
        right = await self._in_thread(lambda: verify_in_time(password, looked_at, cost=self._cost))
        return right and looked_at == stored

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
