"""Deleting images and sweeping what nobody needs."""

from __future__ import annotations

import sqlite3
import time

import pytest

from uhm_builder.errors import ImageInUse, StillBuilding
from uhm_builder.images import ImageWish, Layer

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")


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


async def test_an_image_that_is_being_published_stays(retention, ready, artifacts):
    image = await ready("one", A, [A])
    artifacts.take_lease(A, holder="publication-" + "f" * 32)

    with pytest.raises(ImageInUse, match="being published"):
        await retention.delete(image)


async def test_many_are_deleted_with_one_pass(retention, ready, artifacts, store, collector, monkeypatch):
    made = [await ready(f"app{letter}", "sha256:" + letter * 64, [D]) for letter in "abc"]
    artifacts.take_lease(made[1].disk_digest, holder="machine")
    passes, collect = [], collector.collect
    monkeypatch.setattr(collector, "collect", lambda **options: passes.append(options) or collect(**options))

    with pytest.raises(ImageInUse, match="1 image"):
        await retention.delete_all(made)
    assert [await store.get(image.id) for image in made] == [None, made[1], None]
    assert [artifacts.disk(image.disk_digest).exists() for image in made] == [False, True, False]
    assert len(passes) == 1


async def test_what_is_being_built_cannot_be_deleted(retention, images, store):
    image = await store.get(await images.create(ImageWish(name="a"), owner="alice"))

    with pytest.raises(StillBuilding, match="Cancel"):
        await retention.delete(image)


async def test_a_failed_image_is_deleted_without_a_disk(retention, images, store):
    image = await images.cancel(await images.create(ImageWish(name="a"), owner="alice"), owner="alice")

    assert await retention.delete(image) == 0
    assert await store.get(image.id) is None


async def test_a_disk_that_a_build_is_about_to_have_stays(retention, ready, images, store, artifacts):
    image = await ready("one", A, [A])
    claim = await store.claim(await images.create(ImageWish(name="two"), owner="alice"), now=2**62, lease_until=2**62)
    await store.record(claim, layers=[Layer(diff_id=A)], disk_digest=A)

    await retention.delete(image)

    assert artifacts.disk(A).exists()
    assert artifacts.layer(A).exists()


async def test_a_crash_between_row_and_disk_is_made_up_for(retention, ready, artifacts, forgotten):
    image = await ready("one", A, [A])
    kept = await ready("two", B, [B])
    await forgotten(image)

    await retention.sweep()

    assert not artifacts.disk(A).exists()
    assert not artifacts.layer(A).exists()
    assert artifacts.disk(kept.disk_digest).exists()


async def test_a_machine_keeps_a_disk_that_no_image_names(retention, ready, artifacts, forgotten):
    image = await ready("one", A, [A, B])
    artifacts.take_lease(A, holder="machine")
    await forgotten(image)

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


async def test_a_deletion_is_announced_once(retention, ready, announced):
    image = await ready("one", A, [A])

    await retention.delete(image)
    await retention.delete(image)

    payload = {"id": image.id, "owner": "alice", "reference": "one:latest", "disk_digest": A}
    assert await announced() == [("uhm.images.deleted", payload, f"{image.id}-deleted")]


async def test_the_relay_is_woken_when_the_announcement_is_committed(
    retention, ready, outbox, tmp_path, monkeypatch, artifacts
):
    image = await ready("one", A, [A])
    seen = []

    def wake():
        with sqlite3.connect(tmp_path / "builder.db") as other:
            rows = other.execute("SELECT count(*) FROM builder_outbox WHERE subject = 'uhm.images.deleted'").fetchone()
        other.close()
        seen.append((rows, artifacts.disk(A).exists()))

    monkeypatch.setattr(outbox, "wake", wake)
    await retention.delete(image)

    assert seen == [((1,), True)]


async def test_what_cannot_be_announced_is_not_deleted(retention, ready, outbox, monkeypatch, store, artifacts):
    image = await ready("one", A, [A])

    async def add(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(outbox, "add", add)
    with pytest.raises(ZeroDivisionError):
        await retention.delete(image)

    assert await store.get(image.id)
    assert artifacts.disk(A).exists()


async def test_what_was_never_ready_is_not_announced(retention, images, store, announced):
    await images.cancel(image_id := await images.create(ImageWish(name="a"), owner="alice"), owner="alice")

    await retention.delete(await store.get(image_id))

    assert await store.get(image_id) is None
    assert await announced() == []


async def test_forgetting_what_was_cancelled_announces_nothing(retention, images, store, announced, ready):
    await images.cancel(image_id := await images.create(ImageWish(name="a"), owner="alice"), owner="alice")
    kept = await ready("one", A, [A])

    await store.forget(ended_before=2**62, aliases_before=2**62)

    assert await store.get(image_id) is None
    assert await store.get(kept.id)
    assert await announced() == []


async def test_images_that_lost_their_tag_go_by_request(retention, ready, store, artifacts):
    first = await ready("one", A, [A], taking_over=True)
    second = await ready("one", B, [B], taking_over=True)
    others = await ready("one", C, [C], owner="bob", taking_over=True)
    await ready("one", D, [B], owner="bob", taking_over=True)

    would = await retention.collect(owner="alice", untagged=True, dry_run=True)
    too_young = await retention.collect(owner="alice", untagged=True, older_than_ns=10**12)
    done = await retention.collect(owner="alice", untagged=True)

    assert too_young.images == ()
    assert would == done
    assert done.images == (first.id,)
    assert (done.collected.layers, done.collected.disks) == (1, 1)
    assert await store.get(first.id) is None
    assert [image.id for image in (second, others) if await store.get(image.id)] == [second.id, others.id]


async def test_a_rule_about_images_without_a_tag(retain, ready, store, artifacts, monkeypatch):
    old = await ready("one", A, [A], taking_over=True)
    used = await ready("one", B, [B], taking_over=True)
    last = await ready("one", C, [C], taking_over=True)
    artifacts.take_lease(B, holder="machine")
    await retain(untagged_days=2).sweep_everything()
    assert await store.get(old.id)

    later = time.time_ns() + 3 * 24 * 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    await retain().sweep_everything()
    assert await store.get(old.id)
    await retain(untagged_days=2).sweep_everything()

    assert await store.get(old.id) is None
    assert await store.get(used.id)
    assert await store.get(last.id)
    assert not artifacts.layer(A).exists()


async def test_a_rule_about_images_of_a_name(retain, ready, store, artifacts):
    disks = ["sha256:" + f"{number:064x}" for number in range(6)]
    images = [await ready(f"shop:{number}", disk, [A]) for number, disk in enumerate(disks[:4])]
    others = [await ready("shop:0", disks[4], [A], owner="bob"), await ready("other", disks[5], [A])]
    artifacts.take_lease(disks[1], holder="machine")

    await retain(keep_per_name=2).sweep_everything()

    kept = [number for number, image in enumerate(images) if await store.get(image.id)]
    assert kept == [1, 2, 3]
    assert all([await store.get(image.id) for image in others])
