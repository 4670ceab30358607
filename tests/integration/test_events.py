"""Events and the outbox with the real NATS server: down at first, restarted, killed."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import MetaData, func, select

from uhm_common.database import Database
from uhm_common.errors import Unavailable
from uhm_common.events import BUILDS_REQUESTED, BUILDS_STREAM, EventBus, progress_subject
from uhm_common.outbox import Outbox, outbox_table

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
