"""Tables of users, sessions, API keys, invitations and the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm.render.tables import columns
from uhm.render.units import ago, moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["events_table", "invitations_table", "keys_table", "sessions_table", "users_table"]


def users_table(users: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm users ls`."""
    rows = [
        (
            user["username"],
            user.get("role", ""),
            "disabled" if user.get("disabled") else "enabled",
            ago(user.get("create_time"), now=now),
            ago(user.get("login_time"), now=now) or "never",
        )
        for user in users
    ]
    return columns(("USERNAME", "ROLE", "STATUS", "CREATED", "LOGGED IN"), rows)


def sessions_table(sessions: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm sessions ls`."""
    rows = [
        (
            "*" if session.get("current") else "",
            session["id"],
            ago(session.get("create_time"), now=now),
            ago(session.get("use_time"), now=now),
            _until(session.get("expire_time")),
            session.get("address") or "-",
            _printable(session.get("user_agent", "")) or "-",
        )
        for session in sessions
    ]
    return columns(("", "SESSION ID", "BEGAN", "LAST USED", "EXPIRES", "FROM", "WITH"), rows)


def keys_table(keys: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm keys ls`."""
    rows = [
        (
            key["id"],
            _printable(key.get("name", "")),
            ",".join(key.get("scopes", [])),
            ago(key.get("create_time"), now=now),
            ago(key.get("use_time"), now=now) or "never",
            _until(key.get("expire_time")),
        )
        for key in keys
    ]
    return columns(("KEY ID", "NAME", "SCOPES", "CREATED", "LAST USED", "EXPIRES"), rows)


def invitations_table(invitations: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm invitations ls`."""
    rows = [
        (
            invitation["id"],
            invitation.get("role", ""),
            invitation.get("creator", ""),
            ago(invitation.get("create_time"), now=now),
            _until(invitation.get("expire_time")),
        )
        for invitation in invitations
    ]
    return columns(("INVITATION ID", "ROLE", "CREATOR", "CREATED", "EXPIRES"), rows)


def events_table(events: Sequence[dict[str, Any]]) -> str:
    """The table of `uhm audit`. What others have chosen, such as a name that failed to log in, is shown printable."""
    rows = [
        (
            _until(event.get("time"), precise=True),
            event.get("event", ""),
            _printable(event.get("actor", "")) or "-",
            _printable(event.get("username", "")) or "-",
            _printable(event.get("address", "")) or "-",
            " ".join(f"{name}={_printable(value)}" for name, value in sorted(event.get("details", {}).items())),
        )
        for event in events
    ]
    return columns(("TIME", "EVENT", "BY", "USER", "FROM", "DETAILS"), rows)


def _until(text: str | None, *, precise: bool = False) -> str:
    """A time in UTC; `never` for none."""
    then = moment(text)
    return "never" if then is None else f"{then:%Y-%m-%d %H:%M:%S}" if precise else f"{then:%Y-%m-%d %H:%M}"


def _printable(text: str) -> str:
    """Without anything that a terminal would act upon."""
    return "".join(character if character.isprintable() else "?" for character in text)
