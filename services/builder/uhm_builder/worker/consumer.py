"""Taking tasks from a work queue: one message is one wish that a task, a build or a publication, be taken up.

The message is held by heartbeats (`in_progress`) and the row by its lease, both for as long as the task runs; a worker
that dies loses both after `ack_wait_seconds`. The database decides what a message is good for: a task that has ended is
acknowledged and dropped, one that another worker holds, or that waits for its next try, is handed back for later, one
that was taken up too often fails.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from nats.js.api import AckPolicy, ConsumerConfig
from sqlalchemy.exc import SQLAlchemyError

from uhm_builder.errors import WorkLost
from uhm_common.logs import get_logger
from uhm_common.subscription import pull_consumer, quietly, while_connected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nats.aio.msg import Msg

    from uhm_builder.store import Claim
    from uhm_common.events import EventBus
    from uhm_common.subscription import PullConsumer

__all__ = ["Bounds", "Consumer", "Queue", "Task", "TaskStatus", "TaskStore", "Work"]

log = get_logger()

RETRY_SECONDS = 0.5
DATABASE_RETRY_SECONDS = 2.0
BEATS_PER_LEASE = 4
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much, how long, how often."""

    parallel: int
    ack_wait_seconds: float
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Where tasks of one kind come from."""

    stream: str
    subject: str
    durable: str
    cancel_subjects: str
    """A subject with `*` for the id, the third word."""


class TaskStatus(Protocol):
    """Where a task is."""

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""


class Task(Protocol):
    """What is to be done, as the database has it."""

    @property
    def id(self) -> str:
        """What the queue names it by."""

    @property
    def status(self) -> TaskStatus:
        """Where it is."""

    @property
    def lease_until(self) -> int:
        """Nobody else may take it up before (nanoseconds since the epoch)."""


TaskType = TypeVar("TaskType", bound=Task)
TaskFound_co = TypeVar("TaskFound_co", bound=Task, covariant=True)


class TaskStore(Protocol[TaskFound_co]):
    """The rows of tasks."""

    async def get(self, task_id: str, /) -> TaskFound_co | None:
        """The task of that id."""

    async def claim(self, task_id: str, /, *, now: int, lease_until: int) -> Claim | None:
        """Takes a task up; None where it has ended, or somebody's lease still runs."""

    async def renew(self, claim: Claim, /, *, lease_until: int) -> None:
        """Holds the task on. Raises WorkLost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[TaskType]):
    """What a worker does with a task."""

    run: Callable[[Claim, TaskType], Coroutine[Any, Any, None]]
    """One attempt, which writes down how it ended. Raises WorkLost."""
    fail: Callable[[Claim, str], Coroutine[Any, Any, None]]
    """Ends a task for a reason. Raises WorkLost."""
    idle: Callable[[], Coroutine[Any, Any, None]]
    """Called when the last running task has ended."""


class Consumer(Generic[TaskType]):
    """Runs tasks from a queue, a bounded number at once."""

    def __init__(
        self, queue: Queue, *, events: EventBus, store: TaskStore[TaskType], work: Work[TaskType], bounds: Bounds
    ) -> None:
        self._queue = queue
        self._events = events
        self._store = store
        self._work = work
        self._bounds = bounds
        self._slots = asyncio.Semaphore(bounds.parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._handling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Takes tasks until cancelled; then hands back those that run."""
        try:
            await while_connected(self._events, self._consume)
        finally:
            for task in self._handling:
                task.cancel()
            if self._handling:
                await asyncio.wait(self._handling)

    async def _consume(self) -> None:
        config = ConsumerConfig(
            durable_name=self._queue.durable,
            filter_subject=self._queue.subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._bounds.ack_wait_seconds,
            max_deliver=-1,
            max_ack_pending=-1,
        )
        cancels = await self._events.client.subscribe(self._queue.cancel_subjects, cb=self._cancel)
        try:
            async with pull_consumer(self._events, stream=self._queue.stream, config=config) as consumer:
                while True:
                    await self._take(consumer)
        finally:
            await quietly(cancels.unsubscribe())

    async def _take(self, consumer: PullConsumer) -> None:
        await self._slots.acquire()
        try:
            message = await consumer.next()
        except BaseException:
            self._slots.release()
            raise
        if message is None:
            self._slots.release()
            return
        task = asyncio.create_task(self._handle(message))
        self._handling.add(task)
        task.add_done_callback(self._handled)

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        self._slots.release()

    async def _cancel(self, message: Msg) -> None:
        task_id = message.subject.split(".")[2]
        if task := self._tasks.get(task_id):
            task.cancel()

    async def _handle(self, message: Msg) -> None:
        """Does what a message is good for; never raises but when cancelled."""
        try:
            task_id = str(json.loads(message.data)["id"])
        except (ValueError, KeyError, TypeError):
            log.warning("queue.malformed", data=message.data[:200])
            await quietly(message.term())
            return
        try:
            await self._take_up(task_id, message)
        except (SQLAlchemyError, OSError) as error:
            log.warning("queue.database", task_id=task_id, error=repr(error))
            await quietly(message.nak(delay=DATABASE_RETRY_SECONDS))

    async def _take_up(self, task_id: str, message: Msg) -> None:
        now = time.time_ns()
        claim = await self._store.claim(task_id, now=now, lease_until=self._lease_end(now))
        task = await self._store.get(task_id)
        if task is None or task.status.ended:
            await quietly(message.ack_sync())
        elif claim is None:
            await quietly(message.nak(delay=_pause(task, now)))
        elif claim.attempt > self._bounds.max_attempts:
            log.error("task.given_up", queue=self._queue.durable, task_id=task_id, attempts=claim.attempt - 1)
            await self._work.fail(
                claim, f"It was taken up {claim.attempt - 1} times and no worker lived to its end. Ask for it again."
            )
            await quietly(message.ack_sync())
        else:
            await self._run(claim, task, message)

    async def _run(self, claim: Claim, task: TaskType, message: Msg) -> None:
        running = asyncio.create_task(self._work.run(claim, task))
        beat = asyncio.create_task(self._beat(claim, message))
        self._tasks[task.id] = running
        try:
            await asyncio.wait([running, beat], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(running, beat)
            await self._hand_back(claim, message)
            raise
        finally:
            await _end(running, beat)
            del self._tasks[task.id]
        if not running.cancelled() and (error := running.exception()) and not isinstance(error, WorkLost):
            raise error
        after = await self._store.get(task.id)
        if after is None or after.status.ended:
            await quietly(message.ack_sync())
        else:
            await quietly(message.nak(delay=_pause(after, time.time_ns())))
        if not self._tasks:
            await self._work.idle()

    async def _beat(self, claim: Claim, message: Msg) -> None:
        """Holds message and row; ends when the row is lost: claimed by another, cancelled or deleted."""
        while True:
            await asyncio.sleep(self._bounds.ack_wait_seconds / BEATS_PER_LEASE)
            await quietly(message.in_progress())
            try:
                await self._store.renew(claim, lease_until=self._lease_end(time.time_ns()))
            except WorkLost:
                return
            except (SQLAlchemyError, OSError) as error:
                log.warning("task.not_renewed", task_id=claim.id, error=repr(error))

    async def _hand_back(self, claim: Claim, message: Msg) -> None:
        log.info("task.handed_back", task_id=claim.id)
        try:
            await self._store.renew(claim, lease_until=0)
        except (WorkLost, SQLAlchemyError, OSError):
            return
        await quietly(message.nak())

    def _lease_end(self, now: int) -> int:
        return now + int(self._bounds.ack_wait_seconds * SECOND_NS)


def _pause(task: Task, now: int) -> float:
    """Seconds until somebody may take the task up."""
    return max((task.lease_until - now) / SECOND_NS, 0) + RETRY_SECONDS


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
