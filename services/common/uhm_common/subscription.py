"""Taking events from a stream, each until it was handled: a durable pull consumer with explicit acknowledgements.

NATS may be down, and may come back without what it had: then the consumer is made again, and what the stream still has
is delivered once more. So an event comes at least once, and one that failed comes again after others that followed it:
whoever handles events must bear to get them twice and out of order.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from uhm_common.errors import Unavailable
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

    from uhm_common.events import EventBus

    Handle = Callable[[str, dict[str, Any]], Awaitable[None]]

__all__ = ["Later", "PullConsumer", "Subscription", "pull_consumer", "quietly", "while_connected"]

log = get_logger()

FETCH_SECONDS = 5.0
RECONNECT_SECONDS = 0.5
REDELIVERY_SECONDS = 1.0
REDELIVERY_DOUBLINGS = 6
"""After so many failures an event comes about once a minute, for as long as the stream has it."""
ACK_WAIT_SECONDS = 30.0
FORGOTTEN_SECONDS = 7 * 24 * 3600.0
"""What was handled is remembered so long for who does not come back.

That is longer than any stream keeps its events, but for deletions of users, of which it does no harm to hear again.
"""
BEATS_PER_ACK_WAIT = 4


class Later(Exception):
    """Raised by whoever handles an event that is to come again in some seconds, though nothing has failed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Subscription:
    """The events of some subjects of a stream, from the oldest that it has; one at a time.

    What was handled is remembered under the durable name, and shared by all that use it.
    """

    def __init__(
        self,
        *,
        events: EventBus,
        stream: str,
        subjects: Sequence[str],
        durable: str,
        ack_wait_seconds: float = ACK_WAIT_SECONDS,
    ) -> None:
        """Another process gets an event after `ack_wait_seconds` when the one that has it dies."""
        self._events = events
        self._stream = stream
        self._ack_wait = ack_wait_seconds
        self._config = ConsumerConfig(
            durable_name=durable,
            filter_subjects=list(subjects),
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_seconds,
            max_deliver=-1,
            max_ack_pending=-1,
            inactive_threshold=FORGOTTEN_SECONDS,
        )

    async def run(self, handle: Handle) -> None:
        """Calls `handle(subject, payload)` for each event until cancelled, for as long as each one takes.

        An event is done with when `handle` returns; when it raises, that is logged and the event comes again later, or
        when it wants to where it raises Later. One whose payload is no JSON object is dropped.
        """

        async def consume() -> None:
            async with pull_consumer(self._events, stream=self._stream, config=self._config) as consumer:
                while True:
                    if message := await consumer.next():
                        await self._deliver(message, handle)

        await while_connected(self._events, consume)

    async def _deliver(self, message: Msg, handle: Handle) -> None:
        try:
            payload = json.loads(message.data)
        except ValueError:
            payload = None
        if not isinstance(payload, dict):
            log.warning("subscription.malformed", subject=message.subject, data=message.data[:200])
            await quietly(message.term())
            return
        try:
            async with self._held(message):
                await handle(message.subject, payload)
        except asyncio.CancelledError:
            await quietly(message.nak())
            raise
        except Later as later:
            await quietly(message.nak(delay=later.seconds))
        except Exception as error:  # whatever it was, the event is not done with
            failures = message.metadata.num_delivered
            log.warning("subscription.failed", subject=message.subject, failures=failures, exc_info=error)
            await quietly(message.nak(delay=REDELIVERY_SECONDS * 2 ** min(failures - 1, REDELIVERY_DOUBLINGS)))
        else:
            await quietly(message.ack_sync())

    @asynccontextmanager
    async def _held(self, message: Msg) -> AsyncIterator[None]:
        """Nobody else gets the message within the block, however long that takes."""
        beat = asyncio.create_task(self._beat(message))
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.wait([beat])

    async def _beat(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(self._ack_wait / BEATS_PER_ACK_WAIT)
            await quietly(message.in_progress())


class PullConsumer:
    """A consumer that is there, on a connection that is there."""

    def __init__(self, events: EventBus, queue: JetStreamContext.PullSubscription) -> None:
        self._events = events
        self._queue = queue

    async def next(self) -> Msg | None:
        """The next message, or None after some seconds without one. Raises what `while_connected` expects."""
        message: Msg | None = None
        try:
            (message,) = await self._queue.fetch(1, timeout=FETCH_SECONDS)
        except TimeoutError:
            self._events.client  # noqa: B018 - raises Unavailable where the connection is gone
        if _cancelled():
            if message is not None:
                await quietly(message.nak())
            raise asyncio.CancelledError
        return message


@asynccontextmanager
async def pull_consumer(events: EventBus, *, stream: str, config: ConsumerConfig) -> AsyncIterator[PullConsumer]:
    """The stream's consumer of that durable name: made, or brought up to these settings."""
    context = events.stream
    await context.add_consumer(stream, config)
    queue = await context.pull_subscribe_bind(config.durable_name, stream)
    log.info("consumer.found", durable=config.durable_name)
    try:
        yield PullConsumer(events, queue)
    finally:
        await quietly(queue.unsubscribe())


async def while_connected(events: EventBus, consume: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Consumes until cancelled, and begins again when the server, the stream or the consumer was lost on the way."""
    while True:
        await events.wait_connected()
        try:
            await consume()
        except (NatsError, APIError, Unavailable, OSError, TimeoutError) as error:
            if _cancelled():
                raise asyncio.CancelledError from error
            log.warning("consumer.lost", error=repr(error))
            await asyncio.sleep(RECONNECT_SECONDS)


def _cancelled() -> bool:
    """Whether this task is to end, which nats-py may have swallowed.

    It makes an error of a cancellation where its connection was closed before, and loses one that comes together with a
    message (in `asyncio.wait_for`).
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def quietly(answer: Coroutine[Any, Any, Any]) -> None:
    """Sends an acknowledgement; when it does not arrive, the message comes again."""
    try:
        await answer
    except (NatsError, APIError, OSError, TimeoutError) as error:
        log.warning("consumer.unanswered", error=repr(error))
