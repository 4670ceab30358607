"""The call that is being handled: what its log lines and the audit log say of where it came from."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLIENT_ADDRESS", "REQUEST_ID", "USER_AGENT", "Call", "call_of", "current_call", "set_current_call"]

REQUEST_ID = "x-request-id"
CLIENT_ADDRESS = "x-uhm-client-address"  # this and the next are the gateway's alone to set: it drops clients' own
USER_AGENT = "x-uhm-user-agent"
MAX_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Where a call came from; empty where nobody said."""

    request_id: str = ""
    address: str = ""
    user_agent: str = ""


def call_of(metadata: Mapping[str, str]) -> Call:
    """The call that came with this metadata."""
    return Call(
        request_id=metadata.get(REQUEST_ID, "")[:MAX_LENGTH],
        address=metadata.get(CLIENT_ADDRESS, "")[:MAX_LENGTH],
        user_agent=metadata.get(USER_AGENT, "")[:MAX_LENGTH],
    )


_current: ContextVar[Call] = ContextVar("call", default=Call())  # noqa: B039 - frozen


def current_call() -> Call:
    """The call that is being handled; an empty one outside of calls."""
    return _current.get()


def set_current_call(call: Call) -> None:
    """Notes the call that is being handled; what serves the calls does this."""
    _current.set(call)
