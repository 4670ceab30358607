"""Events, the outbox and subscriptions with the real NATS server: down at first, restarted, killed."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from contextlib import asynccontextmanager
from functools import partial

import nats
import pytest
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError
from sqlalchemy import MetaData, func, select

from uhm_common import subscription as subscription_module
from uhm_common.database import Database
from uhm_common.errors import Unavailable
from uhm_common.events import (
    BUILDS_REQUESTED,
    BUILDS_STREAM,
    IMAGES_DELETED,
    IMAGES_READY,
    IMAGES_STREAM,
    USERS_DELETED,
    USERS_STREAM,
    EventBus,
    progress_subject,
)
from uhm_common.outbox import Outbox, outbox_table
from uhm_common.subscription import Subscription

pytestmark = pytest.mark.integration

METADATA = MetaData()
TABLE = outbox_table(METADATA, name="test_outbox")


@asynccontextmanager
async def running(*works):
    """Background work, cancelled in the end; when one ends before, the test fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for work in works]
        yield
        assert [task for task in tasks if task.done()] == []
        for task in tasks:
            task.cancel()


async def until(condition, *, seconds=20):
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


async def connected(bus):
    await asyncio.wait_for(bus.wait_connected(), 20)


async def stored(bus) -> list[int]:
    """Numbers of the events in the stream of builds, in order."""
    state = (await bus.stream.stream_info(BUILDS_STREAM)).state
    messages = [await bus.stream.get_msg(BUILDS_STREAM, number) for number in range(1, state.last_seq + 1)]
    return [json.loads(message.data)["number"] for message in messages]


@pytest.fixture
def bus(nats_server) -> EventBus:
    return EventBus(nats_server.url, name="test")


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with database.write() as session:
        await session.run_sync(lambda sync: METADATA.create_all(sync.connection()))
    yield database
    await database.close()


@pytest.fixture
def outbox(database, bus) -> Outbox:
    return Outbox(TABLE, database=database, events=bus)


async def add(database, outbox, *numbers):
    async with database.write() as session:
        for number in numbers:
            await outbox.add(session, BUILDS_REQUESTED, {"number": number}, message_id=f"m{number}")
    outbox.wake()


async def waiting(database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(TABLE))


async def test_events_added_while_nats_is_down_arrive_once_it_is_up(nats_server, bus, database, outbox):
    async with running(bus.run, outbox.run):
        await add(database, outbox, 1, 2, 3)
        await asyncio.sleep(1)
        assert await waiting(database) == 3
        with pytest.raises(Unavailable):
            _ = bus.stream

        nats_server.start()

        async def sent():
            return await waiting(database) == 0

        await until(sent)
        assert await stored(bus) == [1, 2, 3]


async def test_the_same_event_is_stored_once(nats_url, bus):
    async with running(bus.run):
        await connected(bus)
        for number in (1, 1, 2, 1):
            await bus.publish_durably(BUILDS_REQUESTED, {"number": number}, message_id=f"m{number}")
        assert await stored(bus) == [1, 2]


async def test_a_relay_that_died_before_deleting_sends_again_and_it_is_stored_once(nats_url, bus, database, outbox):
    async with running(bus.run, outbox.run):
        await connected(bus)
        await bus.publish_durably(BUILDS_REQUESTED, {"number": 1}, message_id="m1")

        await add(database, outbox, 1, 2)

        async def sent():
            return await waiting(database) == 0

        await until(sent)
        assert await stored(bus) == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_the_connection_comes_back_by_itself(nats_server, nats_url, bus, database, outbox, number):
    async def gone():
        try:
            _ = bus.client
        except Unavailable:
            return True
        return False

    async def sent():
        return await waiting(database) == 0

    async with running(bus.run, outbox.run):
        await add(database, outbox, 1)
        await until(sent)

        nats_server.stop(number)
        await until(gone)
        await add(database, outbox, 2)
        with pytest.raises(Unavailable):
            await bus.publish_durably(BUILDS_REQUESTED, {"number": 9}, message_id="m9")
        await bus.publish(progress_subject("b1"), {"lost": True})
        await asyncio.sleep(0.5)
        assert await waiting(database) == 1

        nats_server.start()
        await connected(bus)
        await until(sent)
        assert await stored(bus) == [1, 2]


async def test_streams_that_the_server_lost_are_made_again(nats_server, nats_url, bus):
    async with running(bus.run):
        await connected(bus)
        nats_server.stop()
        shutil.rmtree(nats_server.directory / "jetstream")

        nats_server.start()

        async def stored_again():
            try:
                await bus.publish_durably(BUILDS_REQUESTED, {"number": 1}, message_id="m1")
            except Unavailable:
                return False
            return True

        await until(stored_again)
        assert await stored(bus) == [1]


async def test_two_services_provision_the_streams_at_once(nats_url):
    buses = [EventBus(nats_url, name=f"test-{number}") for number in range(4)]
    async with running(*(bus.run for bus in buses)):
        await asyncio.gather(*(connected(bus) for bus in buses))
        await buses[0].publish_durably(BUILDS_REQUESTED, {"number": 1}, message_id="m1")
        assert await stored(buses[3]) == [1]


async def test_progress_goes_to_who_listens_and_is_not_kept(nats_url, bus):
    async with running(bus.run):
        await connected(bus)
        subscription = await bus.client.subscribe(progress_subject("b1"))
        await bus.client.flush()

        await bus.publish(progress_subject("b1"), {"phase": "convert"})
        await bus.publish(progress_subject("b2"), {"phase": "resolve"})

        message = await subscription.next_msg(timeout=5)
        assert json.loads(message.data) == {"phase": "convert"}
        assert (await bus.stream.stream_info(BUILDS_STREAM)).state.messages == 0


async def test_each_build_goes_to_one_worker(nats_url, bus):
    async with running(bus.run):
        await connected(bus)
        for number in range(20):
            await bus.publish_durably(BUILDS_REQUESTED, {"number": number}, message_id=f"m{number}")
        taken = []
        workers = [await bus.stream.pull_subscribe(BUILDS_REQUESTED, durable="workers") for _ in range(2)]
        for number in range(20):
            (message,) = await workers[number % 2].fetch(1, timeout=5)
            taken.append(json.loads(message.data)["number"])
            await message.ack_sync()
        assert sorted(taken) == list(range(20))
        assert (await bus.stream.stream_info(BUILDS_STREAM)).state.messages == 0


async def test_an_address_that_nobody_answers_can_be_given_up(bus):
    """The end of a service does not wait for NATS."""
    task = asyncio.create_task(bus.run())
    await asyncio.sleep(0.3)
    task.cancel()
    async with asyncio.timeout(3):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_stream_of_an_older_version_gets_the_new_subjects(nats_url, bus):
    async with await nats.connect(nats_url) as older:
        await older.jetstream().add_stream(StreamConfig(name=IMAGES_STREAM, subjects=[IMAGES_READY]))
        await older.jetstream().publish(IMAGES_READY, b"{}")

    async with running(bus.run):
        await connected(bus)
        await bus.publish_durably(IMAGES_DELETED, {"number": 1}, message_id="m1")
        assert (await bus.stream.stream_info(IMAGES_STREAM)).state.messages == 2


async def test_deletions_of_users_are_kept_for_good_also_where_an_older_version_did_not(nats_url, bus):
    async with await nats.connect(nats_url) as older:
        await older.jetstream().add_stream(StreamConfig(name=USERS_STREAM, subjects=[USERS_DELETED], max_age=3600))

    async with running(bus.run):
        await connected(bus)
        assert (await bus.stream.stream_info(USERS_STREAM)).config.max_age == 0


class Heard:
    """Handles events: notes them, then does what `script` has for the next call, an error or something to wait for."""

    def __init__(self, *script):
        self.events: list[tuple[str, int]] = []
        self.times: list[float] = []
        self.script = list(script)

    async def __call__(self, subject, payload):
        self.events.append((subject, payload["number"]))
        self.times.append(time.monotonic())
        act = self.script.pop(0) if self.script else None
        if isinstance(act, Exception):
            raise act
        if act is not None:
            await act()

    async def until(self, count):
        async def enough():
            return len(self.events) >= count

        await until(enough)


@pytest.fixture
def subscription(bus, monkeypatch):
    """Makes subscriptions to what happens to images, which look again soon."""
    monkeypatch.setattr(subscription_module, "FETCH_SECONDS", 1.0)
    return partial(
        Subscription, events=bus, stream=IMAGES_STREAM, subjects=[IMAGES_READY, IMAGES_DELETED], durable="test"
    )


async def tell(bus, subject, *numbers):
    for number in numbers:
        await bus.publish_durably(subject, {"number": number}, message_id=f"m{number}")


async def settled(bus) -> bool:
    """Whether the consumer has been given everything, and everything was acknowledged or dropped."""
    consumer = await bus.stream.consumer_info(IMAGES_STREAM, "test")
    return (consumer.num_pending, consumer.num_ack_pending) == (0, 0)


async def exists(bus) -> bool:
    """Whether the consumer is there, and somebody waits for its next message."""
    try:
        return (await bus.stream.consumer_info(IMAGES_STREAM, "test")).num_waiting > 0
    except NotFoundError:
        return False


async def test_a_subscription_gets_each_event_once_and_the_older_ones_too(nats_url, bus, subscription):
    heard, later = Heard(), Heard()
    async with running(bus.run):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)

        async with running(partial(subscription().run, heard)):
            await tell(bus, IMAGES_DELETED, 2)
            await tell(bus, IMAGES_READY, 3)
            await heard.until(3)
            await until(partial(settled, bus))

        async with running(partial(subscription().run, later)):
            await tell(bus, IMAGES_READY, 4)
            await later.until(1)

    assert heard.events == [(IMAGES_READY, 1), (IMAGES_DELETED, 2), (IMAGES_READY, 3)]
    assert later.events == [(IMAGES_READY, 4)]


async def test_a_subscription_is_to_its_subjects(nats_url, bus, subscription):
    heard = Heard()
    async with running(bus.run, partial(subscription(subjects=[IMAGES_DELETED]).run, heard)):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        await tell(bus, IMAGES_DELETED, 2)
        await heard.until(1)

    assert heard.events == [(IMAGES_DELETED, 2)]


async def test_an_event_that_failed_comes_again_later_and_holds_nobody_up(nats_url, bus, subscription):
    heard = Heard(ZeroDivisionError(), None, OSError(), Unavailable("Not now."))
    async with running(bus.run, partial(subscription().run, heard)):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1, 2)
        await heard.until(5)
        await until(partial(settled, bus))

    assert [number for _, number in heard.events] == [1, 2, 1, 1, 1]
    first, _, second, third, fourth = heard.times
    assert second - first > 0.9
    assert third - second > 1.9
    assert fourth - third > 3.9


async def test_an_event_is_held_while_it_is_handled(nats_url, bus, subscription):
    """Another process that waits for events does not get it."""
    heard = Heard(partial(asyncio.sleep, 2.5))
    listen = partial(subscription(ack_wait_seconds=1).run, heard)
    async with running(bus.run, listen, listen):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        await heard.until(1)
        await tell(bus, IMAGES_READY, 2)
        await until(partial(settled, bus))

    assert [number for _, number in heard.events] == [1, 2]


async def test_an_event_whose_handling_was_interrupted_goes_to_the_next_at_once(nats_url, bus, subscription):
    interrupted, heard = Heard(partial(asyncio.sleep, 60)), Heard()
    async with running(bus.run):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        async with running(partial(subscription(ack_wait_seconds=60).run, interrupted)):
            await interrupted.until(1)

        async with running(partial(subscription(ack_wait_seconds=60).run, heard)):
            await heard.until(1)
            await until(partial(settled, bus))

    assert interrupted.events == heard.events == [(IMAGES_READY, 1)]


@pytest.mark.parametrize("payload", [b"no JSON", b"", b"\xff", b"[1]", b"null"])
async def test_a_payload_that_is_no_json_object_is_dropped(nats_url, bus, subscription, payload):
    heard = Heard()
    async with running(bus.run, partial(subscription().run, heard)):
        await connected(bus)
        await bus.stream.publish(IMAGES_READY, payload)
        await tell(bus, IMAGES_READY, 2)
        await heard.until(1)
        await until(partial(settled, bus))
        consumer = await bus.stream.consumer_info(IMAGES_STREAM, "test")

    assert heard.events == [(IMAGES_READY, 2)]
    assert (consumer.delivered.stream_seq, consumer.num_redelivered) == (2, 0)


async def test_a_subscription_begins_when_nats_does(nats_server, bus, subscription):
    heard = Heard()
    async with running(bus.run, partial(subscription().run, heard)):
        await asyncio.sleep(0.5)
        nats_server.start()
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        await heard.until(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_subscription_goes_on_after_the_server_was_restarted(nats_server, nats_url, bus, subscription, number):
    heard = Heard()
    async with running(bus.run, partial(subscription(ack_wait_seconds=1).run, heard)):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        await heard.until(1)
        await until(partial(settled, bus))

        nats_server.stop(number)
        await asyncio.sleep(0.5)
        nats_server.start()
        await connected(bus)
        await tell(bus, IMAGES_DELETED, 2)
        await heard.until(2)
        await until(partial(settled, bus))

    assert set(heard.events) == {(IMAGES_READY, 1), (IMAGES_DELETED, 2)}
    if number is signal.SIGTERM:  # one that was killed may have forgotten an acknowledgement
        assert len(heard.events) == 2


async def test_a_subscription_goes_on_when_the_server_comes_back_empty(nats_server, nats_url, bus, subscription):
    heard = Heard()
    async with running(bus.run, partial(subscription().run, heard)):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        await heard.until(1)

        nats_server.stop()
        shutil.rmtree(nats_server.directory / "jetstream")
        await asyncio.sleep(0.5)
        nats_server.start()
        await connected(bus)
        await tell(bus, IMAGES_READY, 2)
        await heard.until(2)
        await until(partial(settled, bus))

    assert heard.events == [(IMAGES_READY, 1), (IMAGES_READY, 2)]


async def test_a_consumer_that_was_deleted_is_made_again(nats_url, bus, subscription):
    """What the stream still has comes once more then."""
    heard = Heard()
    async with running(bus.run, partial(subscription().run, heard)):
        await connected(bus)
        await tell(bus, IMAGES_READY, 1)
        await heard.until(1)
        await until(partial(settled, bus))

        await bus.stream.delete_consumer(IMAGES_STREAM, "test")

        await heard.until(2)
        await until(partial(settled, bus))

    assert heard.events == [(IMAGES_READY, 1), (IMAGES_READY, 1)]


@pytest.mark.parametrize("handling", [False, True], ids=["waiting", "handling"])
async def test_a_subscription_ends_though_its_connection_was_closed_first(nats_url, bus, subscription, handling):
    heard = Heard(partial(asyncio.sleep, 60))
    connecting = asyncio.create_task(bus.run())
    listening = asyncio.create_task(subscription().run(heard))
    await connected(bus)
    if handling:
        await tell(bus, IMAGES_READY, 1)
        await heard.until(1)
    else:
        await until(partial(exists, bus))

    connecting.cancel()
    listening.cancel()

    async with asyncio.timeout(3):
        await asyncio.wait([connecting, listening])
    assert listening.cancelled()


async def test_two_processes_share_a_durable_name(nats_url, bus, subscription):
    one, two = Heard(), Heard()
    async with running(bus.run, partial(subscription().run, one), partial(subscription().run, two)):
        await connected(bus)
        await tell(bus, IMAGES_READY, *range(20))
        await until(partial(settled, bus))

        async def all_heard():
            return len(one.events) + len(two.events) == 20

        await until(all_heard)
        await until(partial(settled, bus))

    assert sorted(number for _, number in one.events + two.events) == list(range(20))
