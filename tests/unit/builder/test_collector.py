"""Finding and deleting what no image needs."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager

import pytest

from uhm_builder.collector import Collected, Collector
from uhm_builder.images import ImageWish, Layer
from uhm_builder.threads import entered
from uhm_common.artifacts import Artifact, Kind
from uhm_common.errors import NotFound

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")
BLOCK = 4096


def layer(digest):
    return Artifact(kind=Kind.LAYER, digest=digest)


def disk(digest):
    return Artifact(kind=Kind.DISK, digest=digest)


def base(digest):
    return Artifact(kind=Kind.BASE, digest=digest)


@pytest.fixture
def graceful(artifacts, database, store):
    """A collector with a grace period of an hour."""
    return Collector(artifacts=artifacts, database=database, store=store, grace_seconds=3600)


@pytest.fixture
def clock(monkeypatch):
    """Turns the clock forwards."""
    now = time.time_ns()
    ahead = [0]
    monkeypatch.setattr(time, "time_ns", lambda: now + ahead[0])

    def turn(seconds):
        ahead[0] += int(seconds * 1e9)

    return turn


@pytest.fixture
def put_base(artifacts):
    """Puts a base into the store."""

    def put(digest):
        artifacts.base(digest).mkdir(parents=True)
        (artifacts.base(digest) / "base.json").write_text("{}")

    return put


@contextmanager
def lease(artifacts, digest):
    artifacts.take_lease(digest, holder="machine")
    yield
    artifacts.drop_lease(digest, holder="machine")


async def test_what_images_are_made_of_is_needed(collector, ready, images, store, artifacts):
    image = await ready("one", A, [A, B])
    claim = await store.claim(await images.create(ImageWish(name="two"), owner="bob"), now=2**62, lease_until=2**62)
    await store.record(claim, layers=[Layer(diff_id=C)])
    artifacts.layer(C).touch()

    assert await collector.unneeded() == set()
    assert await collector.unneeded(without=[image.id]) == {layer(A), layer(B), disk(A)}


async def test_what_has_no_image_waits_for_the_grace_period(graceful, ready, artifacts, forgotten, clock):
    await forgotten(await ready("one", A, [A]))

    assert await graceful.collect() == Collected()
    clock(3599)
    assert await graceful.collect() == Collected()
    clock(2)
    collected = await graceful.collect()

    assert (collected.layers, collected.disks) == (1, 1)
    assert collected.bytes >= 2 * BLOCK
    assert artifacts.stored() == set()
    assert list(artifacts.root.glob("staging/*")) == []


async def test_the_loop_goes_on_while_staging_is_swept(collector, ready, forgotten, sweep_under_way):
    await forgotten(await ready("one", A, [A]))
    async with sweep_under_way():
        assert (await collector.collect(at_once=True)).disks == 1


async def test_what_is_needed_again_begins_anew(graceful, ready, artifacts, forgotten, clock):
    await forgotten(await ready("one", A, [A]))
    await graceful.collect()
    clock(3000)
    again = await ready("one", A, [A])
    await graceful.collect()
    await forgotten(again)
    await graceful.collect()
    clock(3000)

    assert await graceful.collect() == Collected()
    assert artifacts.layer(A).exists()


async def test_at_once_means_now(graceful, ready, artifacts, forgotten):
    await ready("kept", B, [B, C])
    await forgotten(await ready("one", A, [A, B]))

    collected = await graceful.collect(at_once=True)

    assert (collected.layers, collected.disks) == (1, 1)
    assert artifacts.stored() == {layer(B), layer(C), disk(B)}


async def test_a_disk_goes_with_the_first_of_its_parts(graceful, ready, artifacts, forgotten, clock):
    """A disk whose layer was made again later, and perhaps with another size, must not be found."""
    artifacts.layer(A).parent.mkdir(parents=True)
    artifacts.layer(A).write_bytes(b"x")
    await graceful.collect()
    clock(3000)
    image = await ready("one", B, [C])
    (artifacts.disk(B) / "disk.json").write_text(f'{{"digest": "{B}", "base": "b", "layers": ["{A}"], "size": 1}}')
    await forgotten(image)
    await graceful.collect()
    clock(700)

    collected = await graceful.collect()

    assert (collected.layers, collected.disks) == (1, 1)
    assert artifacts.stored() == {layer(C)}


async def test_a_lease_keeps_a_disk_and_its_parts(collector, ready, artifacts, forgotten, put_base):
    put_base(D)
    await forgotten(await ready("one", A, [A, B], base=D))

    with lease(artifacts, A):
        assert await collector.collect() == Collected()
    collected = await collector.collect()

    assert (collected.layers, collected.disks, collected.bases) == (2, 1, 1)


async def test_everything_that_belongs_to_a_layer_goes_with_it(collector, artifacts):
    artifacts.layer(A).parent.mkdir(parents=True)
    artifacts.layer(A).write_bytes(b"x" * BLOCK)
    artifacts.layer(A).with_suffix(".verity").write_bytes(b"x" * BLOCK)

    assert (await collector.collect()).bytes >= 2 * BLOCK
    assert list(artifacts.root.glob("layers/*")) == []


async def test_a_former_base_goes_when_no_disk_is_on_it(collector, ready, artifacts, put_base, forgotten):
    put_base(C)
    put_base(D)
    image = await ready("one", A, [A], base=C)

    with artifacts.using_base(D):
        assert await collector.collect() == Collected()
        await forgotten(image)
        assert (await collector.collect()).bases == 1
        assert artifacts.stored() == {base(D)}

    assert (await collector.collect()).bases == 1
    with pytest.raises(NotFound), artifacts.using_base(D):
        pytest.fail("it is gone")


async def test_what_is_noted_while_others_collect_is_spared(collector, ready, store, images, artifacts, forgotten):
    """A build that notes its layers after the first mark, and before the second."""
    await forgotten(await ready("one", A, [A, B]))
    claim = await store.claim(await images.create(ImageWish(name="two"), owner="bob"), now=2**62, lease_until=2**62)

    async with entered(artifacts.disks(exclusive=False)):
        collecting = asyncio.create_task(collector.collect())
        await asyncio.sleep(0.2)
        assert not collecting.done()
        await store.record(claim, layers=[Layer(diff_id=A)])

    assert (await collecting).layers == 1
    assert artifacts.stored() == {layer(A)}


async def test_a_lease_that_is_taken_while_others_collect_counts(collector, ready, artifacts, forgotten):
    await forgotten(await ready("one", A, [A]))

    async with entered(artifacts.disks(exclusive=False)):
        collecting = asyncio.create_task(collector.collect())
        await asyncio.sleep(0.2)
        artifacts.take_lease(A, holder="machine")

    assert await collecting == Collected()
    assert artifacts.stored() == {layer(A), disk(A)}


async def test_many_collect_at_once(artifacts, database, store, ready, forgotten):
    """More of them than there are threads: none may wait for the lock with the thread that its holder needs."""
    await ready("kept", B, [B])
    await forgotten(await ready("one", A, [A]))
    collectors = [Collector(artifacts=artifacts, database=database, store=store, grace_seconds=0) for _ in range(2)]

    async with asyncio.timeout(30):
        await asyncio.gather(*(collectors[number % 2].collect() for number in range(60)))

    assert artifacts.stored() == {layer(B), disk(B)}
