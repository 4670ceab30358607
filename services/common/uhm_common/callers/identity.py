"""Who calls, and the token that says so; `uhm_common.callers.verifier` finds out."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uhm_common.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ADMIN",
    "LOG_IN",
    "USER",
    "Identity",
    "bearer_metadata",
    "bearer_token",
    "current_identity",
    "set_current_identity",
]

USER, ADMIN = "user", "admin"
LOG_IN = "Log in with `uhm login`, or POST /api/v1/token/issue, and send `Authorization: Bearer <access_token>`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls, and the token that says so, to be passed on to other services on the caller's behalf."""

    username: str
    session_id: str  # or the id of the API key
    token: str = field(repr=False)
    role: str = USER
    scopes: frozenset[str] | None = None  # None: all that the user may do; else an API key's
    fresh: bool = False  # the password was given for this very token
    expires_at: float | None = None  # of an API key that expires; in seconds since the epoch

    @property
    def is_admin(self) -> bool:
        """Whether the caller is an administrator."""
        return self.role == ADMIN


def bearer_token(metadata: Mapping[str, str]) -> str:
    """The token of an `authorization: Bearer …` header (RFC 6750). Raises Unauthenticated."""
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    if not scheme:
        raise Unauthenticated("A token is needed.", hint=LOG_IN)
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("The authorization header is not `Bearer <token>`.", hint=LOG_IN)
    return token.strip()


def bearer_metadata(identity: Identity) -> list[tuple[str, str]]:
    """Metadata for a call to another service on the caller's behalf."""
    return [("authorization", f"Bearer {identity.token}")]


_current: ContextVar[Identity] = ContextVar("identity")


def current_identity() -> Identity:
    """Who made the call that is being handled. Raises Unauthenticated in a call that needs no token."""
    try:
        return _current.get()
    except LookupError as error:
        raise Unauthenticated("A token is needed.", hint=LOG_IN) from error


def set_current_identity(identity: Identity) -> None:
    """Notes who makes the call that is being handled; what serves the calls does this."""
    _current.set(identity)
