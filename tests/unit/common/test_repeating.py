"""Work that is done again and again."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from sqlalchemy.exc import OperationalError

from uhm_common.database import DatabaseUnavailable
from uhm_common.repeating import repeat


async def test_it_goes_on_when_the_database_was_away():
    failures = [OperationalError("SELECT", {}, Exception("away")), OSError("refused"), DatabaseUnavailable("Away.")]
    done = asyncio.Event()

    async def work():
        if failures:
            raise failures.pop()
        done.set()

    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(repeat(work, seconds=0, failed="work.failed"))
        async with asyncio.timeout(30):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert [line["event"] for line in lines] == ["work.failed"] * 3


async def test_a_fault_of_ours_is_not_hidden():
    async def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await repeat(work, seconds=0, failed="work.failed")
