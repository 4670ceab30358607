"""The stages of a build, in order, and how a build ends."""
# ruff: noqa: ARG002, ARG005 - a stand-in's signatures are those of what it stands for

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from uhm_builder import pipeline as pipeline_module
from uhm_builder.base import Base
from uhm_builder.disk import Disk
from uhm_builder.errors import BuildLost, NoSuchStorage, NotInRegistry
from uhm_builder.images import Healthcheck, ImageConfig, ImageWish, Layer, StageName, Status, image_config
from uhm_builder.models import OUTBOX
from uhm_builder.outputs import Outputs
from uhm_builder.pipeline import Pipeline
from uhm_builder.sources.source import Resolved
from uhm_builder.storage.places import DirectoryPlace
from uhm_builder.worker.build import Builder
from uhm_common.events import PUBLICATIONS_REQUESTED

LAYER = Layer(diff_id="sha256:l", size=5)
HEALTHCHECK = Healthcheck(command=("h",), interval_ns=1, timeout_ns=2, start_period_ns=3, retries=4)
CONFIG = ImageConfig(cmd=("x",), labels={"k": "v"}, healthcheck=HEALTHCHECK)
BASE = Base(digest="sha256:b", kernel_version="6", command_line="", boot_size=1, base_size=1, state_size=1)


class FakeSource:
    """A Source that notes what is done to it; `script` maps a method to an error, or to what it waits for."""

    def __init__(self, calls, *, dockerfile=False, config=CONFIG, **script):
        self.calls, self.dockerfile, self.script = calls, dockerfile, script
        self.resolved = Resolved(digest="sha256:m", config=config, layers=(Layer(diff_id="sha256:l"),))

    async def step(self, name):
        self.calls.append(name)
        if isinstance(act := self.script.get(name), Exception):
            raise act
        if act is not None:
            await act()

    async def resolve(self):
        await self.step("resolve")
        return StageName.BUILD if self.dockerfile else self.resolved

    async def build(self):
        await self.step("build")
        return self.resolved

    async def convert(self, maker):
        await self.step("convert")
        return (LAYER,)

    async def close(self):
        await self.step("close")


class Bases:
    made = BASE


class Sources:
    def __init__(self, source):
        self.source = source

    def open(self, image, reporter):
        return self.source


@pytest.fixture
def calls(monkeypatch):
    calls = []

    def compose(artifacts, base, layers):
        calls.append("compose")
        return Disk(digest="sha256:disk", base=base.digest, layers=tuple(layers), size=1)

    monkeypatch.setattr(pipeline_module, "compose", compose)
    monkeypatch.setattr(pipeline_module, "disk_digest", lambda base, layers: "sha256:disk")
    return calls


@pytest.fixture
def build(database, store, outbox, events, quotas, publications, artifacts, images, calls):
    """Claims and builds a fresh image from a source; answers it as it is then."""

    async def build(source, before=None, publish=()):
        image_id = await images.create(ImageWish(name="app", publish=publish), owner="alice")
        claim = await store.claim(image_id, now=1, lease_until=2)
        builder = Builder(
            database=database,
            store=store,
            outbox=outbox,
            events=events,
            outputs=Outputs(database),
            sources=Sources(source),
            pipeline=Pipeline(artifacts=artifacts, maker=None, bases=Bases()),
            quotas=quotas,
            publications=publications,
        )
        if before:
            await before(image_id)
        await builder.build(claim, await store.get(image_id))
        return await store.get(image_id)

    return build


@pytest.mark.parametrize("dockerfile", [False, True])
async def test_the_stages_are_in_order(build, calls, dockerfile):
    image = await build(FakeSource(calls, dockerfile=dockerfile))

    stages = ["resolve", *(["build"] if dockerfile else []), "convert", "compose"]
    assert calls == [*stages, "close"]
    assert [stage.name for stage in image.stages] == stages
    assert [stage.bytes for stage in image.stages if stage.name == "convert"] == [5]
    assert (image.status, image.digest, image.disk_digest) == (Status.READY, "sha256:m", "sha256:disk")
    assert (image.layers, image.config.cmd) == ((LAYER,), ("x",))


async def test_a_ready_image_is_announced_with_its_configuration(build, calls, announced):
    image = await build(FakeSource(calls))

    ((subject, payload, message_id),) = await announced()
    assert (subject, message_id) == ("uhm.images.ready", f"{image.id}-ready")
    assert image_config(payload.pop("config")) == CONFIG == image.config
    assert payload == {"id": image.id, "owner": "alice", "reference": "app:latest", "disk_digest": "sha256:disk"}


async def test_a_configuration_that_no_message_holds_is_left_out(build, calls, announced):
    """NATS would refuse the event for ever, and with it all that come after it."""
    huge = ImageConfig(labels={"k": "\N{SNOWMAN}" * 100_000})  # six bytes each in JSON

    image = await build(FakeSource(calls, config=huge))

    ((subject, payload, _),) = await announced()
    assert subject == "uhm.images.ready"
    assert payload == {"id": image.id, "owner": "alice", "reference": "app:latest", "disk_digest": "sha256:disk"}
    assert image.config == huge


async def test_an_image_made_again_unchanged_announces_first_that_the_former_is_deleted(build, calls, announced):
    first, second = await build(FakeSource(calls)), await build(FakeSource(calls))

    told = [(subject, payload["id"]) for subject, payload, _ in await announced()]
    assert told == [
        ("uhm.images.ready", first.id),
        ("uhm.images.deleted", first.id),
        ("uhm.images.ready", second.id),
    ]
    deleted = {"id": first.id, "owner": "alice", "reference": "app:latest", "disk_digest": "sha256:disk"}
    assert (await announced())[1][1:] == (deleted, f"{first.id}-deleted")


async def test_a_build_that_failed_is_announced_to_nobody(build, calls, announced):
    image = await build(FakeSource(calls, convert=NotInRegistry("There is no x.")))

    assert image.status is Status.FAILED
    assert await announced() == []


async def test_the_reason_of_a_failure_is_told(build, calls):
    image = await build(FakeSource(calls, convert=NotInRegistry("There is no x.", hint="Look.")))

    assert (image.status, image.reason) == (Status.FAILED, "There is no x. Look.")
    assert [stage.name for stage in image.stages] == ["resolve", "convert"]
    assert calls[-1] == "close"


async def test_a_fault_of_ours_is_told_by_a_number(build, calls):
    image = await build(FakeSource(calls, resolve=ZeroDivisionError("secret")))

    assert image.status is Status.FAILED
    assert "secret" not in image.reason
    assert "The log has the cause under" in image.reason


async def test_a_build_that_was_cancelled_writes_nothing_more(build, calls, images, events):
    async def cancel(image_id):
        await images.cancel(image_id, owner="alice")

    with pytest.raises(BuildLost):
        await build(FakeSource(calls), before=cancel)

    assert calls == ["resolve", "close"]
    assert events.published[-1][1] == {"changed": True, "ended": True}


async def test_a_build_that_is_interrupted_closes_its_source(build, calls):
    begun = asyncio.Event()

    async def wait():
        begun.set()
        await asyncio.sleep(60)

    building = asyncio.create_task(build(FakeSource(calls, convert=wait)))
    await begun.wait()
    building.cancel()

    with pytest.raises(asyncio.CancelledError):
        await building
    assert calls == ["resolve", "convert", "close"]


async def test_a_ready_image_is_published_where_that_was_asked_for(build, calls, locations, publications, database):
    for name in ("one", "two"):
        await locations.add(name, DirectoryPlace(path="."), owner="alice")

    image = await build(FakeSource(calls), publish=("one", "two", "one"))

    found = await publications.page(owner="alice", before=None, limit=10)
    assert [(each.location, each.image_id, each.status) for each in found] == [
        ("two", image.id, "publishing"),
        ("one", image.id, "publishing"),
    ]
    async with database.read() as session:
        query = select(OUTBOX.c.payload).where(OUTBOX.c.subject == PUBLICATIONS_REQUESTED)
        assert {row.payload["id"] for row in await session.execute(query)} == {each.id for each in found}


async def test_an_image_that_failed_is_published_nowhere(build, calls, locations, publications):
    await locations.add("one", DirectoryPlace(path="."), owner="alice")

    await build(FakeSource(calls, convert=NotInRegistry("no")), publish=("one",))

    assert await publications.page(owner="alice", before=None, limit=10) == []


async def test_a_location_that_is_not_there_is_told_before_anything_is_built(images):
    with pytest.raises(NoSuchStorage, match="'nowhere'"):
        await images.create(ImageWish(name="app", publish=("nowhere",)), owner="alice")
