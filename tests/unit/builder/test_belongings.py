"""Nothing of a deleted user is left, and nothing of others is lost."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from uhm_builder.belongings import BuilderBelongings
from uhm_builder.errors import ImageInUse, NoSuchRegistry, NoSuchStorage, UploadsLeft
from uhm_builder.images import ImageWish, Status
from uhm_builder.models import IDEMPOTENCY_KEYS
from uhm_builder.registries import Registries, RegistryWish
from uhm_builder.storage.places import DirectoryPlace
from uhm_builder.storage.publications import NewPublication, PublicationStatus
from uhm_common.departures import SETTLED_SECONDS, Departures
from uhm_common.idempotency import Key
from uhm_common.subscription import Later

DISKS = {"alice": "sha256:" + "a" * 64, "bob": "sha256:" + "b" * 64}
LAYER = "sha256:" + "1" * 64
ALWAYS = 2**62
GONE = {"owner": "alice", "before": ALWAYS}


async def tar(content):
    yield content


def published(place):
    """What was put into a directory."""
    file = Path(place.path, "shop", "disk")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"published")
    return file


async def nothing(_image):
    """What forgets an appliance, where there is none."""


@pytest.fixture
def registries(database, vault, page_tokens):
    return Registries(database=database, vault=vault, page_tokens=page_tokens)


@pytest.fixture
def belongings(store, events, publications, registries, locations, contexts, idempotency_keys, retention, images):
    parts = SimpleNamespace(
        store=store,
        events=events,
        publications=publications,
        registries=registries,
        locations=locations,
        contexts=contexts,
        idempotency_keys=idempotency_keys,
        retention=retention,
    )
    return BuilderBelongings(parts=parts, images=images, inside=SimpleNamespace(forget=nothing))


@pytest.fixture
def give(database, outbox, ready, belongings):
    """Has a user make one of everything; all send the same archive."""
    parts, images = belongings._parts, belongings._images

    async def give(owner):
        image = (await ready("shop", DISKS[owner], [LAYER], owner=owner)).id
        building = await images.create(ImageWish(name="other"), owner=owner)
        upload = await parts.contexts.receive(tar(b"same"), owner=owner)
        place = DirectoryPlace(path=parts.locations._directories[0].format(user=owner))
        await parts.locations.add("here", place, owner=owner)
        await parts.registries.add(
            RegistryWish(host="reg.example", username="me", password="hush"), owner=owner, clients=None
        )
        file = published(place)
        publication = NewPublication(owner=owner, image_id=image, reference="shop:latest", location="here")
        async with database.write() as session:
            await parts.publications.request(session, publication, outbox=outbox)
        await parts.idempotency_keys.take(Key(owner, "/m", "k"), b"hash")
        return SimpleNamespace(image=image, building=building, upload=upload, publication=publication.id, file=file)

    return give


@pytest.fixture
async def owned(give):
    """What two users have made."""
    return {owner: await give(owner) for owner in ("alice", "bob")}


@pytest.fixture
def nothing_left(store, contexts, registries, locations, publications, database):
    """Makes sure that a user has nothing of what `give` made."""

    async def nothing_left(owner, made):
        assert await store.page(owner=owner, before=None, limit=10) == []
        assert await publications.page(owner=owner, before=None, limit=10) == []
        with pytest.raises(NoSuchRegistry):
            await registries.get("reg.example", owner=owner)
        with pytest.raises(NoSuchStorage):
            await locations.get("here", owner=owner)
        assert (await contexts.received(made.upload.digest, owner=owner)).size == 0
        assert not made.file.parents[1].exists()
        async with database.read() as session:
            assert owner not in await session.scalars(select(IDEMPOTENCY_KEYS.c.owner))

    return nothing_left


@pytest.fixture
def all_there(store, contexts, registries, locations, publications, database):
    """Makes sure that a user has all that `give` made."""

    async def all_there(owner, made):
        images = {image.id: image.status for image in await store.page(owner=owner, before=None, limit=10)}
        assert images == {made.image: Status.READY, made.building: Status.BUILDING}
        assert (await publications.get(made.publication)).status is PublicationStatus.PUBLISHING
        assert (await registries.get("reg.example", owner=owner)).username == "me"
        assert (await locations.get("here", owner=owner)).name == "here"
        assert (await contexts.path(made.upload.id, owner=owner)).read_bytes() == b"same"
        assert made.file.read_bytes() == b"published"
        async with database.read() as session:
            assert owner in await session.scalars(select(IDEMPOTENCY_KEYS.c.owner))

    return all_there


async def test_nothing_of_theirs_is_left_and_others_keep_theirs(belongings, owned, nothing_left, all_there, announced):
    await belongings.delete_all(**GONE)

    await nothing_left("alice", owned["alice"])
    await all_there("bob", owned["bob"])
    assert [payload["id"] for _, payload, _ in await announced()] == [owned["alice"].image]


async def test_what_is_made_later_is_somebody_elses(belongings, give, all_there, publications):
    before = time.time_ns() - 1_000_000_000  # a file system may be a little behind
    made = await give("alice")

    await belongings.delete_all(owner="alice", before=before)
    await all_there("alice", made)

    await publications.cancel(made.publication, owner="alice")
    await belongings.delete_all(owner="alice", before=before)
    assert (await publications.get(made.publication)).status is PublicationStatus.CANCELLED


async def test_what_calls_under_way_have_made_goes_in_the_end(belongings, give, nothing_left):
    now = int(time.time())
    payload = {"username": "alice", "deleted_at": now}
    await give("alice")
    with pytest.raises(Later):
        await Departures(belongings, clock=lambda: now).handle("uhm.users.deleted", payload)
    made = await give("alice")

    await Departures(belongings, clock=lambda: now + SETTLED_SECONDS[-1]).handle("uhm.users.deleted", payload)

    await nothing_left("alice", made)


async def test_credentials_stay_until_begun_uploads_were_given_up(
    belongings, owned, publications, locations, registries, nothing_left
):
    publication, other = owned["alice"].publication, DirectoryPlace(path="other")
    await locations.add("other", other, owner="alice")
    claim = await publications.claim(publication, now=1, lease_until=2)
    await publications.record(claim, uploads={"disk": "token"})

    with pytest.raises(UploadsLeft, match="here"):
        await belongings.delete_all(**GONE)
    assert [each.id for each in await publications.untidy()] == [publication]
    assert [each.name for each in await locations.page(owner="alice", before=None, limit=10)] == ["here"]

    await publications.clear_uploads(publication)
    await belongings.delete_all(**GONE)
    await nothing_left("alice", owned["alice"])


async def test_what_runs_is_told_to_end(belongings, owned, events):
    await belongings.delete_all(**GONE)

    assert events.published == [
        (f"uhm.builds.{owned['alice'].building}.cancel", {}),
        (f"uhm.publications.{owned['alice'].publication}.cancel", {}),
    ]


async def test_an_image_that_a_machine_holds_goes_when_the_machine_has_gone(belongings, owned, store, artifacts):
    artifacts.take_lease(DISKS["alice"], holder="machine")
    with pytest.raises(ImageInUse):
        await belongings.delete_all(**GONE)
    assert [image.id for image in await store.page(owner="alice", before=None, limit=10)] == [owned["alice"].image]
    artifacts.drop_lease(DISKS["alice"], holder="machine")

    await belongings.delete_all(**GONE)
    assert await store.page(owner="alice", before=None, limit=10) == []


async def test_hearing_of_it_twice_does_no_harm(belongings, owned, store):
    for _ in range(2):
        await belongings.delete_all(**GONE)

    assert len(await store.page(owner="bob", before=None, limit=10)) == 2


async def test_the_beginning_of_an_upload_goes_too(belongings, contexts):
    async def broken_off():
        yield b"beginning"
        raise ConnectionError

    digest = "sha256:" + "d" * 64
    for owner in ("alice", "bob"):
        with pytest.raises(ConnectionError):
            await contexts.receive(broken_off(), owner=owner, digest=digest)

    await belongings.delete_all(**GONE)
    assert (await contexts.received(digest, owner="alice")).size == 0
    assert (await contexts.received(digest, owner="bob")).size == len(b"beginning")
