"""The audit log: every event that matters to security, appended and never changed.

What changes something appends its entry in the same transaction, so that neither is there without the other.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import insert

from uhm_auth.models import AuditEventRow
from uhm_common.callers.calls import current_call
from uhm_common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.callers.identity import Identity
    from uhm_common.database import Database

__all__ = ["AuditLog", "Entry", "Event", "append", "check_event", "entry"]

SELDOM_PER_MINUTE = 200


class Event(StrEnum):
    """What can happen; `details` are named beside those that have some."""

    USER_CREATED = "user.created"  # role, invitation
    USER_DENIED = "user.denied"  # reason: registration refused
    USER_UPDATED = "user.updated"  # role, disabled
    USER_DELETED = "user.deleted"
    LOGIN_SUCCEEDED = "login.succeeded"  # session
    LOGIN_FAILED = "login.failed"  # reason, told to nobody else
    LOGIN_LIMITED = "login.limited"  # by
    PASSWORD_CHANGED = "password.changed"  # noqa: S105
    PASSWORD_REFUSED = "password.refused"  # noqa: S105 - asked for once more, and wrong
    PASSWORD_RESET_CREATED = "password.reset_created"  # noqa: S105
    PASSWORD_RESET = "password.reset"  # noqa: S105
    PASSWORD_RESET_FAILED = "password.reset_failed"  # noqa: S105
    INVITATION_CREATED = "invitation.created"  # invitation, role
    INVITATION_DELETED = "invitation.deleted"  # invitation
    SESSION_REVOKED = "session.revoked"  # session, reason
    SESSIONS_REVOKED = "sessions.revoked"  # count, reason
    REFRESH_REUSED = "refresh.reused"  # session
    API_KEY_CREATED = "api_key.created"  # key, name, scopes
    API_KEY_DELETED = "api_key.deleted"  # key
    API_KEY_REFUSED = "api_key.refused"  # key, reason
    KEYS_ROTATED = "keys.rotated"  # kid, reason
    ACCESS_DENIED = "access.denied"  # method


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What happened, ready to be appended. `time` is in milliseconds since the epoch."""

    event: Event
    time: int
    actor: str
    username: str
    address: str
    request_id: str
    details: dict[str, str]


def check_event(name: str) -> None:
    """Raises InvalidArgument for what is not the name of an event."""
    if name not in set(Event):
        raise InvalidArgument(
            f"There is no event {name[:80]!r}.", hint=f"There are: {', '.join(sorted(Event))}.", event=name[:80]
        )


def entry(event: Event, *, username: str, actor: str = "", **details: object) -> Entry:
    """An entry of the call that is being handled: `username` is whom it concerns, `actor` who did it, if known."""
    call = current_call()
    return Entry(
        event=event,
        time=time.time_ns() // 1_000_000,
        actor=_text(actor, 64),
        username=_text(username, 64),
        address=call.address,
        request_id=call.request_id,
        details={name: _text(str(value), 1000) for name, value in details.items()},
    )


def _text(given: str, length: int) -> str:
    """As a database takes it, whatever somebody sent."""
    return given.replace("\0", "\ufffd")[:length]


async def append(transaction: AsyncSession, appended: Entry) -> None:
    """Appends an entry in the transaction of what it tells of."""
    row = {
        "event": appended.event.value,
        "time": appended.time,
        "actor": appended.actor,
        "username": appended.username,
        "address": appended.address,
        "request_id": appended.request_id,
        "details": json.dumps(appended.details, sort_keys=True),
    }
    await transaction.execute(insert(AuditEventRow).values(row))


class AuditLog:
    """Appends entries of what changed nothing, such as a refused login."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._written: defaultdict[Event, OrderedDict[str, float]] = defaultdict(OrderedDict)

    async def write(self, appended: Entry) -> None:
        """Appends an entry in a transaction of its own."""
        async with self._database.write() as transaction:
            await append(transaction, appended)

    async def write_denied(self, method: str, identity: Identity) -> None:
        """Appends that somebody was not allowed to call a method."""
        denied = entry(Event.ACCESS_DENIED, username=identity.username, actor=identity.username, method=method)
        await self.write_seldom(denied, about=f"{identity.username} {method}")

    async def write_seldom(self, appended: Entry, *, about: str) -> bool:
        """Appends an entry, unless one of the same event about the same was in the last minute; answers whether it did.

        What anybody can cause as often as they like would fill the log otherwise, so there are no more than
        SELDOM_PER_MINUTE of each event, too.
        """
        now, written = self._clock(), self._written[appended.event]
        while written and next(iter(written.values())) <= now - 60:
            written.popitem(last=False)
        if about in written or len(written) >= SELDOM_PER_MINUTE:
            return False
        written[about] = now
        try:
            await self.write(appended)
        except BaseException:
            written.pop(about, None)
            raise
        return True
