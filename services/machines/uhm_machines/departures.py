"""What is done when a user was deleted: their machines end, and nothing of them is left.

Calls that began before everybody refused the user's tokens may still have made one, so it is done once more after a
pause. The event comes at least once, and again where it could not be done; nobody gets the name again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_common.idempotency import IdempotencyKeys
    from uhm_machines.service import MachineService

__all__ = ["Departures"]

log = get_logger()

SETTLE_SECONDS: Final = 6.0
"""A token of a session that was ended is refused everywhere after five seconds."""


class Departures:
    """Handles `uhm.users.deleted`. Snapshots of the user's images go with these, as the builder announces them."""

    def __init__(
        self, service: MachineService, *, idempotency_keys: IdempotencyKeys, settle_seconds: float = SETTLE_SECONDS
    ) -> None:
        self._service = service
        self._keys = idempotency_keys
        self._settle = settle_seconds

    async def handle(self, _subject: str, payload: dict[str, Any]) -> None:
        """Deletes every machine of a user."""
        owner = payload.get("username")
        if not isinstance(owner, str):
            log.warning("departure.malformed", payload=payload)
            return
        await self._service.delete_all(owner=owner)
        await asyncio.sleep(self._settle)
        await self._service.delete_all(owner=owner)
        await self._keys.delete_all(owner=owner)
        log.info("departure.done", owner=owner)
