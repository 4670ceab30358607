"""What users have here, and lose when they are deleted: machines, and the idempotency keys of their calls.

Snapshots of their images go with these, as the builder announces them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uhm_common.idempotency import IdempotencyKeys
    from uhm_machines.service import MachineService

__all__ = ["MachineBelongings"]


class MachineBelongings:
    """For `Departures`."""

    def __init__(self, service: MachineService, *, idempotency_keys: IdempotencyKeys) -> None:
        self._service = service
        self._keys = idempotency_keys

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Ends and deletes every machine of an owner."""
        await self._service.delete_all(owner=owner, before=before)
        await self._keys.delete_all(owner=owner, before=before)
