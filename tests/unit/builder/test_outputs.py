"""What is kept of a build's output."""

from __future__ import annotations

from uhm_builder.feed import KEPT_CHARACTERS, Feed
from uhm_builder.images import ImageWish


async def test_the_newest_attempt_counts_and_goes_with_its_image(images, outputs, store, database):
    image_id = await images.create(ImageWish(name="nginx"), owner="alice")
    assert await outputs.lines(image_id) == []

    await outputs.keep(image_id, ["one"])
    await outputs.keep(image_id, ["two", "", "three\x0bfour"])

    assert await outputs.lines(image_id) == ["two", "", "three\x0bfour"]
    await images.cancel(image_id, owner="alice")
    async with database.write() as session:
        await store.delete(session, image_id)
    assert await outputs.lines(image_id) == []


async def test_an_image_that_is_gone_has_none(outputs):
    await outputs.keep("0" * 32, ["x"])
    assert await outputs.lines("0" * 32) == []


def test_the_end_is_kept(events):
    feed = Feed("a", events=events)
    for number in range(1000):
        feed.output(f"{number} " + "x" * 1000)

    assert feed.kept[-1].startswith("999 ")
    assert KEPT_CHARACTERS - 1100 < sum(len(line) + 1 for line in feed.kept) <= KEPT_CHARACTERS
