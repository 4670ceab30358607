"""Passwords that were stolen elsewhere, in a file that the operator provides.

The file is as Have I Been Pwned offers it for download ("Pwned Passwords", ordered by hash): a line for each password,
which begins with its SHA-1 in hexadecimal, and the lines in order. It has some forty gigabytes, so it is not read but
searched; nobody is asked over the network.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BreachedPasswords"]

DIGEST_LENGTH = 40
LINE = re.compile(rb"[0-9A-Fa-f]{40}(:|\s|\Z)")


@dataclass(frozen=True, slots=True)
class BreachedPasswords:
    """The passwords of a file. Raises ValueError where it is not such a list, and OSError where it cannot be read."""

    path: Path

    def __post_init__(self) -> None:
        with self.path.open("rb") as file:
            if LINE.match(file.read(DIGEST_LENGTH + 1)) is None:
                message = f"{self.path} is no list of SHA-1 digests, one a line"
                raise ValueError(message)

    def __contains__(self, password: object) -> bool:
        """Whether the list has a password. Reads the disk some forty times at most: not for the event loop."""
        if not isinstance(password, str):
            return False
        wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
        with self.path.open("rb") as file:
            low, high = 0, file.seek(0, os.SEEK_END)
            while low < high:  # lines that begin before `low` are below what is wanted, those from `high` on are not
                middle = (low + high) // 2
                file.seek(max(middle - 1, 0))
                if middle > 0:
                    file.readline()
                digest = file.readline()[:DIGEST_LENGTH].upper()
                if digest == wanted:
                    return True
                if digest and digest < wanted:
                    low = file.tell()
                else:
                    high = middle
            return False
