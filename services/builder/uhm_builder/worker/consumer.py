"""Taking builds from the work queue: one message is one wish that a build be taken up.

The message is held by heartbeats (`in_progress`) and the row by its lease, both for as long as the build runs; a worker
that dies loses both after `ack_wait_seconds`. The database decides what a message is good for: a build that has ended
is acknowledged and dropped, one that another worker holds is handed back for later, one that was taken up too often
fails.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats.js.api import AckPolicy, ConsumerConfig
from sqlalchemy.exc import SQLAlchemyError

from uhm_builder.errors import BuildLost
from uhm_common.events import BUILDS_REQUESTED, BUILDS_STREAM, cancel_subject
from uhm_common.logs import get_logger
from uhm_common.subscription import pull_consumer, quietly, while_connected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nats.aio.msg import Msg

    from uhm_builder.images import Image
    from uhm_builder.store import Claim, ImageStore
    from uhm_builder.worker.build import Builder
    from uhm_common.events import EventBus
    from uhm_common.subscription import PullConsumer

__all__ = ["Bounds", "BuildConsumer"]

log = get_logger()

DURABLE = "builders"
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


class BuildConsumer:
    """Runs builds from the queue, a bounded number at once."""

    def __init__(
        self,
        *,
        events: EventBus,
        store: ImageStore,
        builder: Builder,
        bounds: Bounds,
        idle: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """`idle` is called when the last running build has ended."""
        self._events = events
        self._store = store
        self._builder = builder
        self._bounds = bounds
        self._idle = idle
        self._slots = asyncio.Semaphore(bounds.parallel)
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._handling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Takes builds until cancelled; then hands back those that run."""
        try:
            await while_connected(self._events, self._consume)
        finally:
            for task in self._handling:
                task.cancel()
            if self._handling:
                await asyncio.wait(self._handling)

    async def _consume(self) -> None:
        config = ConsumerConfig(
            durable_name=DURABLE,
            filter_subject=BUILDS_REQUESTED,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._bounds.ack_wait_seconds,
            max_deliver=-1,
            max_ack_pending=-1,
        )
        cancels = await self._events.client.subscribe(cancel_subject("*"), cb=self._cancel)
        try:
            async with pull_consumer(self._events, stream=BUILDS_STREAM, config=config) as consumer:
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
        build_id = message.subject.split(".")[2]
        if task := self._builds.get(build_id):
            task.cancel()

    async def _handle(self, message: Msg) -> None:
        """Does what a message is good for; never raises but when cancelled."""
        try:
            build_id = str(json.loads(message.data)["id"])
        except (ValueError, KeyError, TypeError):
            log.warning("queue.malformed", data=message.data[:200])
            await quietly(message.term())
            return
        try:
            await self._take_up(build_id, message)
        except (SQLAlchemyError, OSError) as error:
            log.warning("queue.database", build_id=build_id, error=repr(error))
            await quietly(message.nak(delay=DATABASE_RETRY_SECONDS))

    async def _take_up(self, build_id: str, message: Msg) -> None:
        now = time.time_ns()
        claim = await self._store.claim(build_id, now=now, lease_until=self._lease_end(now))
        image = await self._store.get(build_id)
        if image is None or image.status.ended:
            await quietly(message.ack_sync())
        elif claim is None:
            await quietly(message.nak(delay=max((image.lease_until - now) / SECOND_NS, 0) + RETRY_SECONDS))
        elif claim.attempt > self._bounds.max_attempts:
            log.error("build.given_up", build_id=build_id, attempts=claim.attempt - 1)
            await self._builder.fail(
                claim, f"It was taken up {claim.attempt - 1} times and no worker lived to its end. Ask for it again."
            )
            await quietly(message.ack_sync())
        else:
            await self._run(claim, image, message)

    async def _run(self, claim: Claim, image: Image, message: Msg) -> None:
        build = asyncio.create_task(self._builder.build(claim, image))
        beat = asyncio.create_task(self._beat(claim, message))
        self._builds[image.id] = build
        try:
            await asyncio.wait([build, beat], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(build, beat)
            await self._hand_back(claim, message)
            raise
        finally:
            await _end(build, beat)
            del self._builds[image.id]
        if not build.cancelled() and (error := build.exception()) and not isinstance(error, BuildLost):
            raise error
        after = await self._store.get(image.id)
        if after is None or after.status.ended:
            await quietly(message.ack_sync())
        if not self._builds:
            await self._idle()

    async def _beat(self, claim: Claim, message: Msg) -> None:
        """Holds message and row; ends when the row is lost: claimed by another, cancelled or deleted."""
        while True:
            await asyncio.sleep(self._bounds.ack_wait_seconds / BEATS_PER_LEASE)
            await quietly(message.in_progress())
            try:
                await self._store.renew(claim, lease_until=self._lease_end(time.time_ns()))
            except BuildLost:
                return
            except (SQLAlchemyError, OSError) as error:
                log.warning("build.not_renewed", build_id=claim.id, error=repr(error))

    async def _hand_back(self, claim: Claim, message: Msg) -> None:
        log.info("build.handed_back", build_id=claim.id)
        try:
            await self._store.renew(claim, lease_until=0)
        except (BuildLost, SQLAlchemyError, OSError):
            return
        await quietly(message.nak())

    def _lease_end(self, now: int) -> int:
        return now + int(self._bounds.ack_wait_seconds * SECOND_NS)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
