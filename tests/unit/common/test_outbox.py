"""The outbox, with NATS played by a list."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import MetaData, delete, func, select
from sqlalchemy.exc import OperationalError

from uhm_common import outbox as outbox_module
from uhm_common.database import Database
from uhm_common.errors import Unavailable
from uhm_common.outbox import Outbox, outbox_table

METADATA = MetaData()
TABLE = outbox_table(METADATA, name="test_outbox")


class Events:
    """What the outbox needs of EventBus."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict, str]] = []
        self.down = False

    async def wait_connected(self) -> None:
        pass

    async def publish_durably(self, subject, payload, *, message_id) -> None:
        if self.down:
            raise Unavailable("NATS does not answer.")
        self.sent.append((subject, payload, message_id))


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with database.write() as session:
        await session.run_sync(lambda sync: METADATA.create_all(sync.connection()))
    yield database
    await database.close()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def outbox(database, events, monkeypatch) -> Outbox:
    monkeypatch.setattr(outbox_module, "POLL_SECONDS", 0.05)
    return Outbox(TABLE, database=database, events=events)


@asynccontextmanager
async def relaying(outbox):
    task = asyncio.create_task(outbox.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def add(database, outbox, *numbers):
    async with database.write() as session:
        for number in numbers:
            await outbox.add(session, "uhm.test", {"number": number}, message_id=f"m{number}")


async def waiting(database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(TABLE))


async def test_events_leave_in_order_and_once(database, events, outbox):
    await add(database, outbox, *range(250))
    async with relaying(outbox):
        await until(lambda: len(events.sent) == 250)
        await asyncio.sleep(0.2)

    assert events.sent == [("uhm.test", {"number": number}, f"m{number}") for number in range(250)]
    assert await waiting(database) == 0


async def test_what_is_rolled_back_is_not_sent(database, events, outbox):
    async def fail():
        async with database.write() as session:
            await outbox.add(session, "uhm.test", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with relaying(outbox):
        await asyncio.sleep(0.2)
    assert events.sent == []


async def test_waking_it_is_quicker_than_its_polling(database, events, outbox, monkeypatch):
    monkeypatch.setattr(outbox_module, "POLL_SECONDS", 3600)
    async with relaying(outbox):
        await asyncio.sleep(0.1)
        await add(database, outbox, 1)
        outbox.wake()
        await until(lambda: events.sent)


async def test_events_wait_while_nats_is_down(database, events, outbox):
    events.down = True
    async with relaying(outbox):
        await add(database, outbox, 1, 2)
        await asyncio.sleep(0.2)
        assert await waiting(database) == 2
        events.down = False
        await until(lambda: len(events.sent) == 2)


async def test_events_wait_while_the_database_is_away(database, events, outbox, monkeypatch):
    await add(database, outbox, 1)
    read, refusals = database.read, [OperationalError("SELECT", {}, Exception("away")), OSError("refused")]

    def away_at_first():
        if refusals:
            raise refusals.pop()
        return read()

    monkeypatch.setattr(database, "read", away_at_first)
    async with relaying(outbox):
        await until(lambda: events.sent)
    assert refusals == []


async def test_every_event_has_an_id(database, events, outbox):
    async with database.write() as session:
        await outbox.add(session, "uhm.test", {})
        await outbox.add(session, "uhm.test", {})
    async with relaying(outbox):
        await until(lambda: len(events.sent) == 2)
    assert len({message_id for _, _, message_id in events.sent}) == 2


async def test_an_event_that_gets_the_number_of_a_sent_one_is_not_lost(database, events, outbox, monkeypatch):
    """Two processes send the same event, and the first one to be done makes room for another."""
    await add(database, outbox, 1)
    publish = events.publish_durably

    async def meanwhile(subject, payload, *, message_id):
        await publish(subject, payload, message_id=message_id)
        if message_id == "m1":
            async with database.write() as session:
                await session.execute(delete(TABLE))
            await add(database, outbox, 2)

    monkeypatch.setattr(events, "publish_durably", meanwhile)
    async with relaying(outbox):
        await until(lambda: len(events.sent) == 2)

    assert [message_id for _, _, message_id in events.sent] == ["m1", "m2"]
