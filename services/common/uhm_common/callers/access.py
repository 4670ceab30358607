"""What a caller needs to be allowed to call a method, as the method's option `uhmalguhm.access.v1.access` says it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool

from uhm_common.errors import PermissionDenied
from uhmalguhm.access.v1 import access_pb2

if TYPE_CHECKING:
    from uhm_common.callers.identity import Identity

__all__ = ["Access", "access_of", "check_access"]

READ, WRITE = ".read", ".write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a method asks of its caller; see access.proto."""

    public: bool = False
    scope: str = ""
    admin: bool = False
    idempotency_key: bool = False


@cache
def access_of(path: str) -> Access | None:
    """What the method of that path, `/package.Service/Method`, asks; None where it does not say, or is not known."""
    try:
        method = descriptor_pool.Default().FindMethodByName(path.removeprefix("/").replace("/", "."))
    except KeyError:
        return None
    options = method.GetOptions()
    if not options.HasExtension(access_pb2.access):
        return None
    access = options.Extensions[access_pb2.access]
    return Access(public=access.public, scope=access.scope, admin=access.admin, idempotency_key=access.idempotency_key)


def check_access(access: Access, identity: Identity) -> None:
    """Raises PermissionDenied where the caller may not call a method that asks for this."""
    if identity.scopes is not None and not _covers(identity.scopes, access.scope):
        if not access.scope:
            raise PermissionDenied("An API key cannot do this.", hint="Log in, and send an access token.")
        raise PermissionDenied(
            f"This API key may not do this: it lacks the scope {access.scope}.",
            hint="Make a key that has it, or log in.",
            scope=access.scope,
        )
    if access.admin and not identity.is_admin:
        raise PermissionDenied("Only an administrator may do this.", hint="Ask one.")


def _covers(scopes: frozenset[str], wanted: str) -> bool:
    """Whether an API key with these scopes may do what asks for that one: who may write may read."""
    if not wanted:
        return False
    return wanted in scopes or (wanted.endswith(READ) and wanted.removesuffix(READ) + WRITE in scopes)
