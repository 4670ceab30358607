"""Tasks whose message was lost: nobody holds their row, and the queue has nothing that somebody could take up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from uhm_common.errors import Unavailable
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from uhm_builder.worker.consumer import Task
    from uhm_common.database import Database
    from uhm_common.events import EventBus
    from uhm_common.outbox import Outbox

__all__ = ["FindUnheld", "ask_again"]

log = get_logger()


class FindUnheld(Protocol):
    """How a store finds tasks that have not ended."""

    def __call__(self, *, lease_before: int) -> Awaitable[Sequence[Task]]:
        """Those that no worker has held since then (nanoseconds since the epoch)."""


async def ask_again(
    find: FindUnheld,
    *,
    stream: str,
    subject: str,
    event: str,
    database: Database,
    outbox: Outbox,
    events: EventBus,
    lost_after_seconds: float,
) -> None:
    """Puts tasks that nobody holds into their queue again, where it is empty; `event` is what the log says of each."""
    try:
        state = (await events.stream.stream_info(stream)).state
    except (NatsError, APIError, Unavailable, TimeoutError):
        return
    if state.messages:
        return
    for task in await find(lease_before=time.time_ns() - int(lost_after_seconds * 1e9)):
        log.warning(event, task_id=task.id)
        async with database.write() as session:
            await outbox.add(session, subject, {"id": task.id}, message_id=f"{task.id}-{time.time_ns()}")
    outbox.wake()
