"""Codes that are handed to somebody, such as an invitation's: unguessable, kept as a hash only, good for a while."""

from __future__ import annotations

import hashlib
import secrets

from uhm_auth.errors import InvalidTtl

__all__ = ["DAY_SECONDS", "hash_code", "lifetime", "new_code"]

DAY_SECONDS = 24 * 3600
CODE_BYTES = 24


def new_code() -> str:
    """A code of 192 random bits, in characters that a URL takes."""
    return secrets.token_urlsafe(CODE_BYTES)


def hash_code(code: str) -> str:
    """What is stored of a code, in hexadecimal: SHA-256 is enough where nobody can try all codes."""
    return hashlib.sha256(code.encode()).hexdigest()


def lifetime(wanted: int | None, *, default: int, longest: int) -> int:
    """How many seconds something is good for, from what was asked for. Raises InvalidTtl."""
    if wanted is None:
        return default
    if not 1 <= wanted <= longest:
        raise InvalidTtl(f"A ttl of {wanted} s is not possible.", hint=f"It is between 1 s and {longest} s.")
    return wanted
