"""The machines and the idempotency keys of a deleted user go."""

from __future__ import annotations

from unittest.mock import AsyncMock

from uhm_machines.belongings import MachineBelongings


async def test_all_that_there_is_goes():
    machines, idempotency_keys = AsyncMock(), AsyncMock()

    await MachineBelongings(machines, idempotency_keys=idempotency_keys).delete_all(owner="anna", before=7)

    for part in (machines, idempotency_keys):
        part.delete_all.assert_awaited_once_with(owner="anna", before=7)
