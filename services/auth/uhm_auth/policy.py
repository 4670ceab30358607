"""How users are registered here, and what their passwords must be like.

After NIST SP 800-63B-4, section 3.1.1.2: a length, counted in characters (Unicode code points), and an estimate of how
hard the password is to guess; every character may be in it, and none has to be. A password is hashed as it was sent,
byte by byte, without Unicode normalisation: "é" typed in two ways on two devices makes two passwords, and nobody's
password changes with a version of Unicode.

The estimate is zxcvbn's (Wheeler, USENIX Security 2016): 0, among the first thousand guesses, to 4, not within 10^10.
It is told the words that an attacker would try first: the username, its parts, our own name, and the operator's words.
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uhm_auth.errors import InvalidPassword

if TYPE_CHECKING:
    from collections.abc import Container

    from zxcvbn import _Result

__all__ = ["MAX_PASSWORD_BYTES", "Policy", "Registration"]

MAX_PASSWORD_BYTES = 1024
ESTIMATED_LENGTHS = (16, 72)
ESTIMATED_WORK = 16 * 72**2
"""What an estimate may cost, in readings times squared length: some tenths of a second."""
OUR_NAMES = ("uhmalguhm", "uhm")
"""The words of ASVS 6.1.2 that every user has in common; docs/security.md lists them."""
SOUND_MIN_LENGTH = 8
"""What OWASP ASVS 5.0 asks for at least (6.2.1); NIST and OWASP recommend 15 where there is no second factor."""

_estimating = threading.Lock()  # zxcvbn keeps its `user_inputs` in a global


class Registration(StrEnum):
    """Who may register."""

    OPEN = "open"
    INVITATION = "invitation"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who may register, and with what passwords.

    `words` are what an attacker would try first here, and `breached` the passwords that were stolen elsewhere.
    """

    registration: Registration = Registration.OPEN
    password_min_length: int = 1
    password_min_score: int = 0
    words: tuple[str, ...] = ()
    breached: Container[str] = frozenset()

    @property
    def weak(self) -> bool:
        """Whether passwords may be such as are guessed at once."""
        return self.password_min_length < SOUND_MIN_LENGTH or self.password_min_score == 0

    def check(self, password: str, *, username: str) -> None:
        """Raises InvalidPassword where a user may not choose a password. Takes its time: not for the event loop."""
        self._check_length(password)
        if password in self.breached:
            raise InvalidPassword(
                "The password is on a list of passwords that were stolen elsewhere.",
                hint="Choose another, here and wherever you use it.",
            )
        if self.password_min_score == 0:
            return
        if password.casefold() == username.casefold():
            raise InvalidPassword("The password is the username.", hint="Choose another.")
        estimate = _estimate(password, username=username, words=(*OUR_NAMES, *self.words))
        if estimate["score"] < self.password_min_score:
            feedback = estimate["feedback"]
            raise InvalidPassword(
                f"The password is too easy to guess: it scores {estimate['score']} of 4, and"
                f" {self.password_min_score} is asked for.",
                hint=" ".join(filter(None, [feedback["warning"], *feedback["suggestions"]])),
            )

    def _check_length(self, password: str) -> None:
        if (characters := len(password)) < self.password_min_length:
            wanted = f"at least {self.password_min_length} characters" if self.password_min_length > 1 else "a password"
            raise InvalidPassword(f"The password is too short: it has {characters} characters.", hint=f"Send {wanted}.")
        if (size := len(password.encode())) > MAX_PASSWORD_BYTES:
            raise InvalidPassword(
                f"The password is too long: it has {size} bytes.", hint=f"It may have {MAX_PASSWORD_BYTES}."
            )


def _estimate(password: str, *, username: str, words: tuple[str, ...]) -> _Result:
    """What zxcvbn says of a password of that user, or of its beginning, where it is long."""
    from zxcvbn import zxcvbn  # noqa: PLC0415 - its lists take 14 MB, which who accepts anything does without

    known = [username, *re.split(r"[._@+-]+", username), *words]
    with _estimating:
        return zxcvbn(password[: _estimated_length(password)], user_inputs=[word for word in known if word])


def _estimated_length(password: str) -> int:
    """How many characters to look at.

    zxcvbn reads signs as letters, "4" as "a", in every way that is possible, and takes the square of the length for
    each: somebody who means it keeps it busy for seconds with 72 characters.
    """
    from zxcvbn.matching import L33T_TABLE  # noqa: PLC0415 - as above

    readings = math.prod(max(1, sum(sign in password for sign in signs)) for signs in L33T_TABLE.values())
    shortest, longest = ESTIMATED_LENGTHS
    return min(longest, max(shortest, math.isqrt(ESTIMATED_WORK // readings)))
