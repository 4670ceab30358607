"""Build secrets on their way from the API that holds them to the worker that asks, over the real NATS server."""
# ruff: noqa: ASYNC110 - what is awaited tells nobody

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from nats.errors import Error as NatsError

from uhm_builder import secrets as module
from uhm_builder.errors import SecretsLost, SecretsTooMany
from uhm_builder.images import BuildContext, Image, Status
from uhm_builder.secrets import HeldSecrets, SecretRequests
from uhm_common.events import EventBus, secrets_subject

pytestmark = pytest.mark.integration

SECRETS = {"token": b"hush\0\xff", "key": b""}


class Rows:
    """Images as the database would have them."""

    def __init__(self):
        self.images = {}

    def put(self, image_id, *, attempt=1, status=Status.BUILDING):
        context = BuildContext(id="c", secret_ids=tuple(SECRETS))
        self.images[image_id] = Image(
            number=1, id=image_id, owner="alice", reference="x", status=status, created_at=0, context=context,
            attempt=attempt,
        )  # fmt: skip
        return self.images[image_id]

    async def get(self, image_id):
        return self.images.get(image_id)


@pytest.fixture
def rows():
    return Rows()


@pytest.fixture
async def bus(nats_url):
    bus = EventBus(nats_url, name="test")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bus.run())
        await bus.wait_connected()
        yield bus
        running.cancel()


@pytest.fixture
async def held(rows, bus):
    async with answering(HeldSecrets(store=rows, events=bus), bus) as held:
        yield held


@asynccontextmanager
async def answering(held, bus):
    task = asyncio.create_task(held.run())
    while not bus.client._subs:
        await asyncio.sleep(0.01)
    yield held
    task.cancel()
    await asyncio.wait([task])


async def test_they_arrive_once_per_attempt(rows, bus, held):
    image = rows.put("a")
    held.hold("a", SECRETS)

    assert await SecretRequests(bus).of(image) == SECRETS
    with pytest.raises(NatsError):
        await ask(bus, attempt=1)
    assert await SecretRequests(bus).of(rows.put("a", attempt=2)) == SECRETS


@pytest.mark.parametrize("asked", [{"attempt": 2}, {"attempt": 0}, {"attempt": "x"}, {}, [], "nonsense"])
async def test_who_asks_wrongly_gets_nothing(rows, bus, held, asked):
    rows.put("a", attempt=1)
    held.hold("a", SECRETS)
    with pytest.raises(NatsError):
        await bus.client.request(secrets_subject("a"), json.dumps(asked).encode(), timeout=0.3)


@pytest.mark.parametrize("status", [Status.READY, Status.FAILED, Status.CANCELLED])
async def test_a_build_that_has_ended_gets_nothing_and_is_forgotten(rows, bus, monkeypatch, status):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    async with answering(HeldSecrets(store=rows, events=bus), bus) as held:
        rows.put("a")
        held.hold("a", SECRETS)
        rows.put("a", status=status)
        with pytest.raises(NatsError):
            await ask(bus, attempt=1)
        async with asyncio.timeout(5):
            while held.holds("a"):
                await asyncio.sleep(0.02)


async def test_nobody_has_them(rows, bus):
    with pytest.raises(SecretsLost, match="Build again"):
        await SecretRequests(bus).of(rows.put("a"))


async def test_a_build_without_secrets_asks_nobody(bus):
    image = Image(
        number=1, id="a", owner="alice", reference="x", status=Status.BUILDING, created_at=0,
        context=BuildContext(id="c"),
    )  # fmt: skip
    assert await SecretRequests(bus).of(image) == {}


async def test_memory_for_them_is_bounded(rows, bus, monkeypatch):
    monkeypatch.setattr(module, "BYTES_MAX", 10)
    held = HeldSecrets(store=rows, events=bus)
    held.hold("a", {"x": bytes(6)})
    with pytest.raises(SecretsTooMany):
        held.hold("b", {"x": bytes(6)})
    held.forget("a")
    held.hold("b", {"x": bytes(6)})


async def ask(bus, *, attempt):
    return await bus.client.request(secrets_subject("a"), json.dumps({"attempt": attempt}).encode(), timeout=0.3)
