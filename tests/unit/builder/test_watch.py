"""Watching builds, with NATS and without."""
# ruff: noqa: ARG002 - a stand-in's signatures are those of what it stands for

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from uhm_builder import hints as hints_module
from uhm_builder.errors import NoSuchImage
from uhm_builder.feed import Feed
from uhm_builder.images import Image, Stage, Status
from uhm_builder.watch import LayerProgress, OutputLine, Watcher
from uhm_common.errors import Unavailable
from uhm_common.events import progress_subject


class Bus:
    """An EventBus in memory; `down` is a server that does not answer."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.heard: dict[str, list] = {}

    @property
    def client(self):
        if self.down:
            raise Unavailable("NATS does not answer.")
        return self

    async def subscribe(self, subject, cb):
        self.heard.setdefault(subject, []).append(cb)

        async def unsubscribe():
            self.heard[subject].remove(cb)

        return SimpleNamespace(unsubscribe=unsubscribe)

    async def publish(self, subject, payload):
        for callback in [] if self.down else self.heard.get(subject, []):
            await callback(SimpleNamespace(data=json.dumps(payload).encode()))


class Row:
    """An ImageStore of one image."""

    def __init__(self) -> None:
        self.image: Image | None = Image(
            number=1, id="i", owner="alice", reference="a:latest", status=Status.BUILDING, created_at=1
        )
        self.reads = 0

    async def get(self, image_id):
        self.reads += 1
        return self.image

    def change(self, **values):
        from dataclasses import replace  # noqa: PLC0415

        self.image = replace(self.image, **values)


@pytest.fixture
def row():
    return Row()


async def collect(watcher, into):
    async for event in watcher.watch("i"):
        into.append(event)


async def test_everything_that_is_told_comes_before_the_end(row, outputs):
    bus, events = Bus(), []
    watching = asyncio.create_task(collect(Watcher(store=row, outputs=outputs, events=bus), events))
    await asyncio.sleep(0.01)
    feed = Feed("i", events=bus)

    feed.progress(stage="convert", layer="l", done=1, total=2)
    feed.progress(stage="convert", layer="l", done=2, total=2)
    feed.output("Step 1")
    row.change(stages=(Stage(name="resolve", start_ms=0, duration_ms=1),))
    await feed.changed()
    await asyncio.sleep(0.01)
    feed.output("Step 2")
    row.change(status=Status.READY)
    await feed.ended()
    started = time.monotonic()
    await watching

    assert time.monotonic() - started < 0.2
    images = [event for event in events if isinstance(event, Image)]
    others = [event for event in events if not isinstance(event, Image)]
    assert [(image.status, len(image.stages)) for image in images] == [
        (Status.BUILDING, 0),
        (Status.BUILDING, 1),
        (Status.READY, 1),
    ]
    assert others == [
        OutputLine("Step 1"),
        LayerProgress(stage="convert", layer="l", done=2, total=2),
        OutputLine("Step 2"),
    ]
    assert events[-1] is images[-1]
    assert bus.heard[progress_subject("i")] == []


async def test_without_nats_the_database_is_asked(row, monkeypatch, outputs):
    monkeypatch.setattr(hints_module, "POLL_SECONDS", 0.02)
    events = []
    watching = asyncio.create_task(collect(Watcher(store=row, outputs=outputs, events=Bus(down=True)), events))
    await asyncio.sleep(0.05)

    row.change(lease_until=99)
    await asyncio.sleep(0.05)
    row.change(status=Status.FAILED, reason="why")
    await watching

    assert [event.status for event in events] == [Status.BUILDING, Status.FAILED]


async def test_what_has_ended_is_told_at_once(row, outputs):
    row.change(status=Status.CANCELLED)
    events = []
    started = time.monotonic()

    await collect(Watcher(store=row, outputs=outputs, events=Bus()), events)

    assert time.monotonic() - started < 0.2
    assert [event.status for event in events] == [Status.CANCELLED]


async def test_an_image_that_is_deleted_meanwhile_is_said(row, monkeypatch, outputs):
    monkeypatch.setattr(hints_module, "POLL_SECONDS", 0.01)
    watching = asyncio.create_task(collect(Watcher(store=row, outputs=outputs, events=Bus()), []))
    await asyncio.sleep(0.02)
    row.image = None

    with pytest.raises(NoSuchImage, match="was deleted"):
        await watching


async def test_a_flood_of_output_is_sent_in_bounded_messages():
    bus, messages = Bus(), []

    async def hear(message):
        messages.append(json.loads(message.data))

    await bus.subscribe(progress_subject("i"), hear)
    feed = Feed("i", events=bus)
    for number in range(1200):
        feed.output(f"{number} " + "x" * 10_000)

    await feed.flush()

    lines = [line for message in messages for line in message["output"]]
    assert [line.partition(" ")[0] for line in lines] == [str(number) for number in range(1200)]
    assert max(len(json.dumps(message)) for message in messages) < 1_000_000
