"""One attempt at a publication: how it ends, what is tried again, and what it holds meanwhile."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import asdict

import pytest

from uhm_builder.errors import PublicationLost
from uhm_builder.export.exporter import ExportedDisk
from uhm_builder.export.options import DiskFormat
from uhm_builder.images import ImageConfig, ImageWish, Layer, Status
from uhm_builder.storage.content import Content
from uhm_builder.storage.index import read_index
from uhm_builder.storage.places import DirectoryPlace, RegistryPlace, WebDavPlace
from uhm_builder.storage.publications import NewPublication, lease_holder
from uhm_builder.storage.publisher import Publisher
from uhm_builder.storage.upkeep import PublicationUpkeep

DISK = "sha256:" + "d" * 64
LAYER = Layer(diff_id="sha256:" + "1" * 64, size=1 << 20)
ATTEMPTS = 3


class SmallExporter:
    """Exports a few bytes: what a disk has in it is tested elsewhere."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "exported"
        self.path.write_bytes(b"a disk")

    @asynccontextmanager
    async def exported(self, _image, options):
        content = Content.of(self.path)
        yield ExportedDisk(
            path=self.path,
            size=content.size,
            digest=content.digest,
            format=DiskFormat(options.format),
            filename="disk.qcow2",
            findings=(),
            phases=(),
        )


@pytest.fixture
def publisher(artifacts, store, publications, locations, events, tmp_path):
    return Publisher(
        artifacts=artifacts,
        images=store,
        publications=publications,
        locations=locations,
        exporter=SmallExporter(tmp_path),
        events=events,
        max_attempts=ATTEMPTS,
    )


@pytest.fixture
async def image(images, store, database, artifacts):
    """A ready image whose parts are in the store."""
    image_id = await images.create(ImageWish(name="app"), owner="alice")
    claim = await store.claim(image_id, now=1, lease_until=2)
    config = ImageConfig(cmd=("x",), architecture="amd64")
    values = {"status": Status.READY, "disk_digest": DISK, "layers": [asdict(LAYER)], "config": asdict(config)}
    async with database.write() as session:
        await store.finish(session, claim, values)
    artifacts.layer(LAYER.diff_id).parent.mkdir(parents=True)
    artifacts.layer(LAYER.diff_id).write_bytes(bytes(1 << 20))
    artifacts.disk(DISK).mkdir(parents=True)
    (artifacts.disk(DISK) / "disk.vmdk").touch()
    return await store.get(image_id)


@pytest.fixture
def attempt(database, publications, outbox, publisher):
    """Asks for a publication, or takes one up again; answers it as it is after the attempt."""

    async def attempt(image, location, *, again=None):
        if again is None:
            new = NewPublication(owner="alice", image_id=image.id, reference="app:latest", location=location)
            async with database.write() as session:
                await publications.request(session, new, outbox=outbox)
        publication_id = again or new.id
        claim = await publications.claim(publication_id, now=2**62, lease_until=2**62)
        await publisher.publish(claim, await publications.get(publication_id))
        return await publications.get(publication_id)

    return attempt


@pytest.fixture
async def unreachable(locations, monkeypatch):
    async def nothing(opened):
        pass

    with monkeypatch.context() as patch:
        patch.setattr("uhm_builder.storage.locations.try_out", nothing)
        await locations.add("far", WebDavPlace(url="http://127.0.0.1:1/", username=""), owner="alice")
    return "far"


async def test_an_image_is_published(attempt, image, locations, artifacts):
    await locations.add("home", DirectoryPlace(path="."), owner="alice")

    done = await attempt(image, "home")

    assert (done.status, done.reason, done.uploads) == ("published", "", {})
    assert done.done_bytes == done.total_bytes > 1 << 20
    async with locations.open("home", owner="alice") as opened:
        (entry,) = await read_index(opened.store, opened.layout)
    assert entry.image.layers[0].diff_id == LAYER.diff_id
    assert artifacts.lease_holders(DISK) == []


async def test_what_may_pass_is_tried_again_after_growing_pauses_and_holds_the_disk(
    attempt, image, unreachable, artifacts
):
    pauses = []
    publication_id = None
    for _ in range(ATTEMPTS - 1):
        waiting = await attempt(image, unreachable, again=publication_id)
        publication_id = waiting.id
        assert waiting.status == "publishing"
        assert "does not answer" in waiting.reason
        assert artifacts.lease_holders(DISK) == [lease_holder(publication_id)]
        pauses.append(round((waiting.lease_until - time.time_ns()) / 1e9))
    assert pauses == [1, 2]

    given_up = await attempt(image, unreachable, again=publication_id)

    assert given_up.status == "failed"
    assert given_up.reason.endswith(f"It was tried {ATTEMPTS} times.")
    assert artifacts.lease_holders(DISK) == []


async def test_what_will_not_pass_ends_it(attempt, image, locations, retain):
    await locations.add("home", DirectoryPlace(path="."), owner="alice")
    gone = await attempt(image, "nowhere")
    assert (gone.status, "no storage location 'nowhere'" in gone.reason) == ("failed", True)
    await retain().delete(image)
    deleted = await attempt(image, "home")
    assert (deleted.status, deleted.reason) == ("failed", "The image app:latest was deleted.")


async def test_whoever_has_lost_it_writes_nothing(publications, publisher, attempt, image, unreachable):
    waiting = await attempt(image, unreachable)
    lost = await publications.claim(waiting.id, now=2**62, lease_until=1)
    await publications.claim(waiting.id, now=2**62, lease_until=1)

    with pytest.raises(PublicationLost):
        await publisher.publish(lost, await publications.get(waiting.id))
    with pytest.raises(PublicationLost):
        await publisher.fail(lost, "no")

    assert (await publications.get(waiting.id)).status == "publishing"


async def test_what_was_cancelled_while_nobody_ran_it_is_tidied(
    attempt, image, unreachable, artifacts, database, publications, publisher, outbox, events
):
    waiting = await attempt(image, unreachable)
    assert await publications.cancel(waiting.id, owner="alice")
    assert artifacts.lease_holders(DISK) != []
    upkeep = PublicationUpkeep(
        artifacts=artifacts,
        database=database,
        publications=publications,
        publisher=publisher,
        outbox=outbox,
        events=events,
        lost_after_seconds=1,
    )

    await upkeep.tidy()

    assert artifacts.lease_holders(DISK) == []
    assert await publications.untidy() == []
    assert await publications.claim(waiting.id, now=2**62, lease_until=1) is None


async def test_an_upload_that_cannot_be_given_up_stays_written_down(
    locations, database, publications, publisher, outbox, image, monkeypatch
):
    async def nothing(opened):
        pass

    monkeypatch.setattr("uhm_builder.storage.locations.try_out", nothing)
    await locations.add("far", RegistryPlace(repository="127.0.0.1:1/team/disks", username=""), owner="alice")
    new = NewPublication(owner="alice", image_id=image.id, reference="app:latest", location="far")
    async with database.write() as session:
        await publications.request(session, new, outbox=outbox)
    claim = await publications.claim(new.id, now=2**62, lease_until=2**62)
    uploads = {f"app/blobs/{DISK}": "http://127.0.0.1:1/v2/team/disks/app/blobs/uploads/1"}
    await publications.record(claim, uploads=uploads)
    assert await publications.cancel(new.id, owner="alice")

    await publisher.tidy(new.id)
    assert [each.uploads for each in await publications.untidy()] == [uploads]

    await locations.delete("far", owner="alice")
    await publisher.tidy(new.id)
    assert await publications.untidy() == []
