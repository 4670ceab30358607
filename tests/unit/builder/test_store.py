"""Images in the database: fencing, taking over references, pages."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import pytest
from sqlalchemy import update

from uhm_builder.errors import BuildLost
from uhm_builder.images import TRANSITIONS, BuildContext, Healthcheck, ImageConfig, Layer, Stage, Status
from uhm_builder.models import ImageRow
from uhm_builder.store import Claim, NewImage

COUNT = itertools.count(1)
DIGEST = "sha256:" + "cd" * 32


@pytest.fixture
def add(database, store):
    """Adds an image that is being built; answers its id."""

    async def add(reference="nginx:latest", *, owner="alice", context=None, created_at=1000):
        image_id = f"{next(COUNT):032x}"
        new = NewImage(id=image_id, owner=owner, reference=reference, source=context, created_at=created_at)
        async with database.write() as session:
            await store.add(session, new)
        return image_id

    return add


@pytest.fixture
def take_over(database, store):
    """Gives an image its reference; answers the ids of those that went."""

    async def take_over(image_id, reference, *, disk, owner):
        async with database.write() as session:
            gone = await store.take_over(
                session, owner=owner, image_id=image_id, reference=reference, disk=disk, now=30
            )
        return [image.id for image in gone]

    return take_over


@pytest.fixture
def delete(database, store):
    """Deletes an image; answers it."""

    async def delete(image_id):
        async with database.write() as session:
            return await store.delete(session, image_id)

    return delete


@pytest.fixture
def ready(database, store, add, take_over):
    """Adds an image that is ready; answers its id."""

    async def ready(reference="nginx:latest", *, disk="sha256:disk", owner="alice", named=True, **values):
        image_id = await add(reference, owner=owner)
        claim = await store.claim(image_id, now=10, lease_until=20)
        async with database.write() as session:
            values |= {"status": Status.READY, "ended_at": 30, "disk_digest": disk, "digest": DIGEST}
            await store.finish(session, claim, values)
        if named:
            await take_over(image_id, reference, disk=disk, owner=owner)
        return image_id

    return ready


def test_what_has_ended_stays_so():
    assert all(Status.BUILDING not in after for after in TRANSITIONS.values())
    assert [status for status in Status if not status.ended] == [Status.BUILDING]


async def test_an_image_comes_back_as_it_was(store, add):
    context = BuildContext(id="c", build_args={"a": "b"}, no_cache=True)
    image_id = await add(context=context)
    claim = await store.claim(image_id, now=10, lease_until=20)
    layers, stages = (
        [Layer(diff_id="sha256:a", size=5, reused=True)],
        [Stage(name="resolve", start_ms=0, duration_ms=1.5)],
    )

    await store.record(claim, layers=layers, stages=stages, disk_digest="sha256:d")

    image = await store.get(image_id)
    assert image.context == context
    assert (list(image.layers), list(image.stages), image.disk_digest) == (layers, stages, "sha256:d")
    assert (image.size, image.status, image.attempt) == (5, Status.BUILDING, 1)


async def test_a_build_is_claimed_by_one(store, add):
    image_id = await add()

    assert await store.claim(image_id, now=10, lease_until=20) == Claim(id=image_id, attempt=1)
    assert await store.claim(image_id, now=15, lease_until=25) is None
    assert await store.claim(image_id, now=21, lease_until=31) == Claim(id=image_id, attempt=2)


async def test_an_older_attempt_can_write_nothing(database, store, add):
    image_id = await add()
    old = await store.claim(image_id, now=10, lease_until=20)
    await store.claim(image_id, now=21, lease_until=31)

    with pytest.raises(BuildLost):
        await store.record(old, layers=[])
    with pytest.raises(BuildLost):
        await store.renew(old, lease_until=100)
    with pytest.raises(BuildLost):
        async with database.write() as session:
            await store.finish(session, old, {"status": Status.READY})
    assert (await store.get(image_id)).status is Status.BUILDING


async def test_a_cancelled_build_cannot_become_ready(database, store, add):
    image_id = await add()
    claim = await store.claim(image_id, now=10, lease_until=20)

    assert await store.cancel(image_id, owner="alice", now=15)
    assert not await store.cancel(image_id, owner="alice", now=16)

    with pytest.raises(BuildLost):
        async with database.write() as session:
            await store.finish(session, claim, {"status": Status.READY})
    image = await store.get(image_id)
    assert (image.status, image.ended_at) == (Status.CANCELLED, 15)
    assert await store.claim(image_id, now=100, lease_until=200) is None


async def test_others_cannot_cancel_or_see(store, add):
    image_id = await add()

    assert not await store.cancel(image_id, owner="bob", now=1)
    assert await store.get(image_id, owner="bob") is None
    assert await store.by_prefix(image_id[:31], owner="bob") == []
    assert await store.by_reference("nginx:latest", owner="bob") == []


async def test_an_image_made_again_unchanged_is_one_image(store, ready):
    first, second, third = await ready(), await ready(), await ready()

    assert [image.id for image in await store.by_reference("nginx:latest", owner="alice")] == [third]
    for former in (first, second, third):
        assert (await store.get(former, owner="alice")).id == third
        assert third in [image.id for image in await store.by_prefix(former[:32], owner="alice")]
    assert await store.get(first, owner="bob") is None


async def test_an_image_made_again_differently_takes_the_reference(store, ready):
    first, second = await ready(disk="sha256:one"), await ready(disk="sha256:two")

    assert (await store.get(second)).reference == "nginx:latest"
    assert (await store.get(first)).reference == f"nginx@{DIGEST}"
    assert [image.id for image in await store.by_reference("nginx:latest", owner="alice")] == [second]


async def test_references_of_others_stay(store, ready):
    mine, theirs, tag = await ready(), await ready(owner="bob"), await ready("nginx:1.27")

    for image_id in (mine, theirs, tag):
        assert (await store.get(image_id)).id == image_id


async def test_those_that_went_for_another_are_told(ready, take_over):
    await ready()
    await ready(disk="sha256:other")
    await ready(owner="bob")
    await ready("nginx:1.27")
    second = await ready(named=False)

    assert await take_over(second, "nginx:latest", disk="sha256:disk", owner="alice") == []

    third, fourth = await ready(named=False), await ready(named=False)
    assert await take_over(fourth, "nginx:latest", disk="sha256:disk", owner="alice") == [second, third]


async def test_deleting_an_image_forgets_its_former_ids(store, ready, delete):
    first, second = await ready(), await ready()
    known = await store.get(second)

    assert await delete(second) == known

    assert await store.get(first) is None
    assert await delete(second) is None


async def test_what_is_being_built_is_not_deleted(store, add, delete):
    image_id = await add()

    assert await delete(image_id) is None

    assert await store.get(image_id)


async def test_a_configuration_comes_back_as_it_was(store, ready):
    config = ImageConfig(
        cmd=("a", "b"),
        labels={"k": "v"},
        healthcheck=Healthcheck(command=("c", "d"), interval_ns=1, timeout_ns=2, start_period_ns=3, retries=4),
    )

    image_id = await ready(config=asdict(config))

    assert (await store.get(image_id)).config == config


@pytest.mark.parametrize(
    ("record", "config"),
    [
        ({}, ImageConfig()),
        ({"cmd": ["a"], "labels": {}, "architecture": "amd64"}, ImageConfig(cmd=("a",), architecture="amd64")),
        ({"user": "1", "healthcheck": None}, ImageConfig(user="1")),
    ],
    ids=["nothing", "before there were healthchecks", "no healthcheck"],
)
async def test_a_configuration_of_an_older_row_is_read(database, store, ready, record, config):
    image_id = await ready()
    async with database.write() as session:
        await session.execute(update(ImageRow).values(config=record))

    assert (await store.get(image_id)).config == config


async def test_pages_go_backwards_in_time(store, add):
    ids = [await add(reference) for reference in ("a:1", "a:2", "ab:1", "a:1")]
    await add("a:1", owner="bob")

    newest = await store.page(owner="alice", before=None, limit=3)
    rest = await store.page(owner="alice", before=newest[-1].number, limit=3)
    tagged = await store.page(owner="alice", before=None, limit=9, references=["a:1"])
    any_tag = await store.page(owner="alice", before=None, limit=9, references=["a:", "a@"])

    assert [image.id for image in newest + rest] == ids[::-1]
    assert [image.id for image in tagged] == [ids[3], ids[0]]
    assert [image.id for image in any_tag] == [ids[3], ids[1], ids[0]]


async def test_what_is_used_are_ready_and_building_images(store, add, ready):
    await ready(disk="sha256:ready")
    claim = await store.claim(await add("x:1"), now=10, lease_until=20)
    await store.record(claim, layers=[Layer(diff_id="sha256:l")], disk_digest="sha256:soon")
    cancelled = await add("y:1")
    gone = await store.claim(cancelled, now=10, lease_until=20)
    await store.record(gone, layers=[Layer(diff_id="sha256:no")], disk_digest="sha256:no")
    await store.cancel(cancelled, owner="alice", now=15)

    in_use = await store.in_use()
    assert (in_use.layers, in_use.disks) == ({"sha256:l"}, {"sha256:ready", "sha256:soon"})
    assert len(await store.disk_users("sha256:soon")) == 1


async def test_old_failures_and_former_ids_are_forgotten(store, add, ready):
    former, _ = await ready(), await ready()
    failed = await add("x:1")
    await store.cancel(failed, owner="alice", now=50)

    await store.forget(ended_before=50, aliases_before=30)
    assert await store.get(failed)
    assert await store.get(former)

    await store.forget(ended_before=51, aliases_before=31)
    assert await store.get(failed) is None
    assert await store.get(former) is None


async def test_builds_that_nobody_holds_are_found(store, add):
    waiting, held = await add(created_at=10), await add(created_at=10)
    await add(created_at=60)
    await store.claim(held, now=10, lease_until=100)

    assert [image.id for image in await store.building(lease_before=50)] == [waiting]
    assert len(await store.building()) == 3
