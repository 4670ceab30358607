"""What can go wrong in the auth service.

InvalidArgument      InvalidUsername, InvalidPassword
AlreadyExists        UsernameTaken
Unauthenticated      WrongCredentials, SessionEnded, RefreshTokenReused
ResourceExhausted    TooManyPasswords
FailedPrecondition   SigningKeyUnusable
"""

from __future__ import annotations

from uhm_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unauthenticated,
)

__all__ = [
    "InvalidPassword",
    "InvalidUsername",
    "RefreshTokenReused",
    "SessionEnded",
    "SigningKeyUnusable",
    "TooManyPasswords",
    "UsernameTaken",
    "WrongCredentials",
]


class InvalidUsername(InvalidArgument):
    """A name that nobody can have."""


class InvalidPassword(InvalidArgument):
    """A password that is too short or too long."""


class UsernameTaken(AlreadyExists):
    """Another user has the name."""


class WrongCredentials(Unauthenticated):
    """No such user, or not this password; which of the two is not told."""


class SessionEnded(Unauthenticated):
    """The session of a refresh token was revoked, has expired, or is unknown."""


class RefreshTokenReused(Unauthenticated):
    """A refresh token that had been replaced was used again, so somebody else may have it: the session is revoked."""


class TooManyPasswords(ResourceExhausted):
    """More passwords wait to be checked than the service will hold."""


class SigningKeyUnusable(FailedPrecondition):
    """The file of the signing key cannot be read, written, or understood."""
