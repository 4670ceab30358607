"""What can go wrong in the auth service.

InvalidArgument      InvalidUsername, InvalidPassword, InvalidRole, InvalidUpdateMask, InvalidTtl, InvalidApiKey
AlreadyExists        UsernameTaken
NotFound             UserNotFound, InvitationNotFound, SessionNotFound, ApiKeyNotFound
PermissionDenied     RegistrationClosed, InvitationRefused, UserDisabled, WrongPassword, WrongResetCode, NoAdministrator
Unauthenticated      WrongCredentials, SessionEnded, RefreshTokenReused, ApiKeyRefused
ResourceExhausted    TooManyPasswords, TooManyAttempts, TooManyApiKeys
FailedPrecondition   LastAdministrator, NobodyRegisters, SigningKeyUnusable
"""

from __future__ import annotations

from uhm_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)

__all__ = [
    "ApiKeyNotFound",
    "ApiKeyRefused",
    "InvalidApiKey",
    "InvalidPassword",
    "InvalidRole",
    "InvalidTtl",
    "InvalidUpdateMask",
    "InvalidUsername",
    "InvitationNotFound",
    "InvitationRefused",
    "LastAdministrator",
    "NoAdministrator",
    "NobodyRegisters",
    "RefreshTokenReused",
    "RegistrationClosed",
    "SessionEnded",
    "SessionNotFound",
    "SigningKeyUnusable",
    "TooManyApiKeys",
    "TooManyAttempts",
    "TooManyPasswords",
    "UserDisabled",
    "UserNotFound",
    "UsernameTaken",
    "WrongCredentials",
    "WrongPassword",
    "WrongResetCode",
]


class InvalidUsername(InvalidArgument):
    """A name that nobody can have."""


class InvalidPassword(InvalidArgument):
    """A password that the policy does not allow."""


class InvalidRole(InvalidArgument):
    """Neither a user nor an administrator."""


class InvalidUpdateMask(InvalidArgument):
    """A field that does not exist, or that nobody can change."""


class InvalidTtl(InvalidArgument):
    """A time to live that is not between a second and the longest that is allowed."""


class UserNotFound(NotFound):
    """No such user, or one who was deleted."""


class InvitationNotFound(NotFound):
    """No such invitation: it was withdrawn, used, or has expired."""


class RegistrationClosed(PermissionDenied):
    """Nobody can register here."""


class InvitationRefused(PermissionDenied):
    """An invitation is needed, or the one that was sent is not good; why is not told."""


class UserDisabled(PermissionDenied):
    """The password was right, but an administrator has disabled the user."""


class WrongPassword(PermissionDenied):
    """The password that was asked for once more is not that of the caller."""


class WrongResetCode(PermissionDenied):
    """No such user, or not a code that is good for the user now; which of them is not told."""


class NoAdministrator(PermissionDenied):
    """Whoever calls was an administrator when the token was given, and is none now."""


class LastAdministrator(FailedPrecondition):
    """Nobody would be left to administer the system."""


class NobodyRegisters(FailedPrecondition):
    """An invitation would be of no use, because registration is closed."""


class UsernameTaken(AlreadyExists):
    """Another user has the name."""


class WrongCredentials(Unauthenticated):
    """No such user, or not this password; which of the two is not told."""


class SessionNotFound(NotFound):
    """The user has no session of that id, or it has ended."""


class SessionEnded(Unauthenticated):
    """The session of a refresh token was revoked, has expired, or is unknown."""


class RefreshTokenReused(Unauthenticated):
    """A refresh token that had been replaced was used again, so somebody else may have it: the session is revoked."""


class TooManyPasswords(ResourceExhausted):
    """More passwords wait to be checked than the service will hold."""


class TooManyAttempts(ResourceExhausted):
    """Too many passwords or codes were wrong; carries after how many seconds another may be tried."""


class TooManyApiKeys(ResourceExhausted):
    """A user has as many API keys as a user may have."""


class ApiKeyRefused(Unauthenticated):
    """No such API key, or it has expired, was deleted, or its user is gone; which of these is not told."""


class InvalidApiKey(InvalidArgument):
    """A name, scopes or a lifetime that no API key can have."""


class ApiKeyNotFound(NotFound):
    """The user has no API key of that id."""


class SigningKeyUnusable(FailedPrecondition):
    """The signing keys were encrypted with another key than the one that is there."""
