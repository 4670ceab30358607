"""What a service does when a user was deleted: whatever it has of theirs goes.

It is done at once, and again when calls that had begun before have ended, since these may still have made something.
The event says when the user was deleted: what was made later is of somebody else who has the name, as after the users
were restored from a backup, and stays. So an event that is heard of late, or twice, does no harm; clocks are taken to
agree to within a minute.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from uhm_common.errors import FailedPrecondition
from uhm_common.logs import get_logger
from uhm_common.subscription import Later

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SETTLED_SECONDS", "Belongings", "Departures"]

log = get_logger()

SETTLED_SECONDS = (6.0, 120.0)
"""After the deletion, when to do it again: everybody has refused the user's tokens for a second, and all calls that had
begun before have ended. The last is the time until which all that there is under the name is the user's."""
AGAIN_SECONDS = 10.0
"""When to try again where something had to stay, such as an image that a machine still has."""
SECOND_NS = 1_000_000_000


class Belongings(Protocol):
    """What a service has of its users."""

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Deletes what an owner had made before that time, in nanoseconds since the epoch, or what is left of it.

        Raises FailedPrecondition where something has to stay for now; then this is called again.
        """


class Departures:
    """Handles `uhm.users.deleted`, for a `Subscription`."""

    def __init__(self, belongings: Belongings, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells the seconds since the epoch."""
        self._belongings = belongings
        self._clock = clock

    async def handle(self, _subject: str, payload: dict[str, Any]) -> None:
        """Deletes everything of a user. Raises Later until all is deleted and no more can come."""
        owner, deleted_at = payload.get("username"), payload.get("deleted_at")
        if not isinstance(owner, str) or not owner or not isinstance(deleted_at, int):
            log.warning("departure.malformed", payload=payload)
            return
        since = self._clock() - deleted_at
        before = int((deleted_at + SETTLED_SECONDS[-1]) * SECOND_NS)
        try:
            await self._belongings.delete_all(owner=owner, before=before)
        except FailedPrecondition as error:
            log.info("departure.waits", owner=owner, reason=error.message)
            raise Later(AGAIN_SECONDS) from error
        for settled in SETTLED_SECONDS:
            if since < settled:
                raise Later(settled - since)
        log.info("departure.done", owner=owner)
