"""Hints over NATS that a row of the database is worth a look, or how far its work is: unsaved, and they may be lost.

Whoever follows a row asks the database at a hint that it changed, and once a second while NATS is silent, so the end of
its work is never missed.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError

from uhm_common.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.aio.msg import Msg

    from uhm_common.events import EventBus

__all__ = ["Hint", "Hints", "hints_on", "until_changed"]

Hint = dict[str, Any]
Hints = asyncio.Queue[Hint]

POLL_SECONDS = 1.0
WAITING_MAX = 1000


@asynccontextmanager
async def hints_on(subject: str, *, events: EventBus) -> AsyncIterator[Hints]:
    """What is told on a subject; none where NATS does not answer, and those that nobody takes in time are lost."""
    hints: Hints = asyncio.Queue(WAITING_MAX)

    async def heard(message: Msg) -> None:
        if not hints.full():
            hints.put_nowait(json.loads(message.data))

    try:
        subscription = await events.client.subscribe(subject, cb=heard)
    except (NatsError, Unavailable, OSError):
        yield hints  # nothing comes, so the database is asked
        return
    try:
        yield hints
    finally:
        with suppress(NatsError):  # where the connection is gone, the subscription is too
            await subscription.unsubscribe()


async def until_changed(hints: Hints) -> AsyncIterator[Hint]:
    """What is told within a second, up to a hint that the database changed, which is the last one."""
    deadline = asyncio.get_running_loop().time() + POLL_SECONDS
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                hint = await hints.get()
        except TimeoutError:
            return
        yield hint
        if "changed" in hint:
            return
