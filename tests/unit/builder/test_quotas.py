"""What one user may have, and what is used of it."""

from __future__ import annotations

import asyncio

import pytest

from uhm_builder.errors import QuotaReached
from uhm_builder.images import ImageWish, Layer
from uhm_builder.quotas import Quota, Quotas
from uhm_builder.usage import UsageMeter

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def quota():
    """The bounds of a test."""
    return Quota()


@pytest.fixture
def quotas(database, store, quota):
    return Quotas(quota, database=database, store=store)


@pytest.fixture
def usage(artifacts, database, store, collector, quotas):
    return UsageMeter(artifacts=artifacts, database=database, store=store, collector=collector, quotas=quotas)


async def ask(images, *, owner="alice"):
    return await images.create(ImageWish(name="x"), owner=owner)


@pytest.mark.parametrize("quota", [Quota(builds=2)])
async def test_builds_at_once(images):
    ids = [await ask(images), await ask(images)]
    with pytest.raises(QuotaReached, match="2 of your images are being built; 2 may be at once"):
        await ask(images)

    await ask(images, owner="bob")
    await images.cancel(ids[0], owner="alice")
    await ask(images)


@pytest.mark.parametrize("quota", [Quota(images=2)])
async def test_images_count_while_they_are_built(images, ready, retention):
    image = await ready("one", A, [A])
    await ask(images)
    with pytest.raises(QuotaReached, match="You have 2 images, of which 1 are being built; 2 are allowed") as error:
        await ask(images)
    assert "uhm rmi" in error.value.hint

    await retention.delete(image)
    await ask(images)


@pytest.mark.parametrize("quota", [Quota(images=5, builds=5)])
async def test_many_requests_at_once_pass_one_after_the_other(images):
    answers = await asyncio.gather(*(ask(images) for _ in range(30)), return_exceptions=True)

    assert sum(isinstance(answer, str) for answer in answers) == 5
    assert all(isinstance(answer, str | QuotaReached) for answer in answers)


@pytest.mark.parametrize("quota", [Quota(bytes=3 * 4096)])
async def test_a_layer_counts_once(images, ready, quotas, database):
    await ready("one", A, [A, B])
    await ready("two", B, [A])
    await ask(images)
    layers = [Layer(diff_id=A, size=4096), Layer(diff_id=C, size=4096)]
    async with database.write() as session:
        await quotas.admit_layers(session, owner="alice", layers=layers)
        with pytest.raises(
            QuotaReached, match="would have 12289 bytes in layers, each counted once; 12288 are allowed"
        ):
            await quotas.admit_layers(session, owner="alice", layers=[Layer(diff_id=C, size=4097)])

    await ready("three", C, [A, C])
    with pytest.raises(QuotaReached, match="Your images have 12288 bytes"):
        await ask(images)


async def test_without_a_quota_nothing_is_refused(images, quotas, database):
    for _ in range(5):
        await ask(images)
    async with database.write() as session:
        await quotas.admit_layers(session, owner="alice", layers=[Layer(diff_id=A, size=1 << 60)])


@pytest.mark.parametrize("quota", [Quota(images=7)])
async def test_usage(usage, ready, images, artifacts):
    await ready("one", A, [A, B])
    await ready("one", A, [B], owner="bob")
    await ask(images)
    artifacts.layer(C).write_bytes(b"x" * 4096)

    used = await usage.of("alice")

    assert (used.images, used.building, used.quota) == (1, 1, Quota(images=7))
    assert (used.layer_bytes, used.unshared_bytes) == (8192, 4096)
    assert used.reclaimable_bytes == 4096
    assert used.store_bytes >= 3 * 4096
    assert used.free_bytes > 0


async def test_usage_of_nothing(usage):
    used = await usage.of("nobody")
    assert (used.images, used.layer_bytes, used.store_bytes) == (0, 0, 0)
