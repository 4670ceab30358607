"""Deleting images and sweeping what nobody needs."""

from __future__ import annotations

import asyncio
import json

import pytest

from uhm_builder.errors import ImageInUse, StillBuilding
from uhm_builder.images import Layer, Status

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def ready(images, store, database, artifacts):
    """Makes an image of layers, with files where they belong."""

    async def ready(name, disk, diff_ids, *, owner="alice"):
        image_id = await images.create(name, tag="", context=None, owner=owner)
        claim = await store.claim(image_id, now=2**62, lease_until=2**62)
        layers = [Layer(diff_id=diff_id, size=4096) for diff_id in diff_ids]
        await store.record(claim, layers=layers, disk_digest=disk)
        for diff_id in diff_ids:
            artifacts.layer(diff_id).parent.mkdir(parents=True, exist_ok=True)
            artifacts.layer(diff_id).write_bytes(b"x" * 4096)
        artifacts.disk(disk).mkdir(parents=True, exist_ok=True)
        (artifacts.disk(disk) / "disk.vmdk").write_text("descriptor")
        record = {"digest": disk, "base": "b", "layers": diff_ids, "size": 1}
        (artifacts.disk(disk) / "disk.json").write_text(json.dumps(record))
        async with database.write() as session:
            await store.finish(session, claim, {"status": Status.READY})
        return await store.get(image_id)

    return ready


async def test_deleting_takes_what_no_other_image_uses(retention, ready, artifacts, store):
    one, two = await ready("one", A, [A, B]), await ready("two", B, [A, C])

    assert await retention.delete(one) >= 4096

    assert await store.get(one.id) is None
    assert not artifacts.disk(A).exists()
    assert not artifacts.layer(B).exists()
    assert artifacts.layer(A).exists()
    assert artifacts.disk(two.disk_digest).exists()


async def test_a_shared_disk_stays_for_the_other(retention, ready, artifacts):
    one, two = await ready("one", A, [A]), await ready("two", A, [A], owner="bob")
    artifacts.take_lease(A, holder="machine")

    await retention.delete(one)
    assert artifacts.disk(A).exists()

    with pytest.raises(ImageInUse, match="1 machine"):
        await retention.delete(two)
    artifacts.drop_lease(A, holder="machine")
    await retention.delete(two)
    assert not artifacts.disk(A).exists()
    assert not artifacts.layer(A).exists()


async def test_a_used_image_stays_whole(retention, ready, artifacts, store):
    image = await ready("one", A, [A])
    artifacts.take_lease(A, holder="machine")

    with pytest.raises(ImageInUse):
        await retention.delete(image)

    assert await store.get(image.id)
    assert artifacts.layer(A).exists()


async def test_what_is_being_built_cannot_be_deleted(retention, images, store):
    image = await store.get(await images.create("a", tag="", context=None, owner="alice"))

    with pytest.raises(StillBuilding, match="Cancel"):
        await retention.delete(image)


async def test_a_failed_image_is_deleted_without_a_disk(retention, images, store):
    image = await images.cancel(await images.create("a", tag="", context=None, owner="alice"), owner="alice")

    assert await retention.delete(image) == 0
    assert await store.get(image.id) is None


async def test_a_disk_that_a_build_is_about_to_have_stays(retention, ready, images, store, artifacts):
    image = await ready("one", A, [A])
    claim = await store.claim(
        await images.create("two", tag="", context=None, owner="alice"), now=2**62, lease_until=2**62
    )
    await store.record(claim, layers=[Layer(diff_id=A)], disk_digest=A)

    await retention.delete(image)

    assert artifacts.disk(A).exists()
    assert artifacts.layer(A).exists()


async def test_nothing_is_swept_while_a_build_runs(retention, ready, artifacts):
    image = await ready("one", A, [A])
    with artifacts.in_use():
        await retention.delete(image)
        assert artifacts.layer(A).exists()

    assert await retention.sweep() >= 4096
    assert not artifacts.layer(A).exists()


async def test_a_crash_between_row_and_disk_is_made_up_for(retention, ready, artifacts, store):
    image = await ready("one", A, [A])
    kept = await ready("two", B, [B])
    await store.delete(image.id)

    await retention.sweep()

    assert not artifacts.disk(A).exists()
    assert not artifacts.layer(A).exists()
    assert artifacts.disk(kept.disk_digest).exists()


async def test_a_machine_keeps_a_disk_that_no_image_names(retention, ready, artifacts, store):
    image = await ready("one", A, [A, B])
    artifacts.take_lease(A, holder="machine")
    await store.delete(image.id)

    await retention.sweep()
    assert artifacts.disk(A).exists()
    assert artifacts.layer(B).exists()

    artifacts.drop_lease(A, holder="machine")
    await retention.sweep()
    assert not artifacts.disk(A).exists()
    assert not artifacts.layer(B).exists()


async def test_leftovers_of_a_crash_are_swept(retention, artifacts):
    left = artifacts.root / "staging" / "crashed"
    left.mkdir(parents=True)
    (left / "layer.erofs").write_bytes(b"x")

    await retention.sweep_everything()

    assert not left.exists()


async def test_a_deletion_waits_for_another_sweep(retention, ready, artifacts):
    image = await ready("one", A, [A])
    sweeping = artifacts.no_builds()
    sweeping.__enter__()
    deleting = asyncio.create_task(retention.delete(image))
    await asyncio.sleep(0.1)
    assert artifacts.layer(A).exists()

    sweeping.__exit__(None, None, None)

    assert await deleting >= 4096
    assert not artifacts.layer(A).exists()
