"""Nothing of a deleted user is left, and nothing of others is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import select

from uhm_builder.departures import Departures
from uhm_builder.errors import ImageInUse, NoSuchRegistry, NoSuchStorage
from uhm_builder.images import ImageWish
from uhm_builder.models import IDEMPOTENCY_KEYS, OUTBOX
from uhm_builder.registries import Registries, RegistryWish
from uhm_builder.storage.places import DirectoryPlace
from uhm_builder.storage.publications import NewPublication, PublicationStatus
from uhm_common.idempotency import _Key

DISKS = {"alice": "sha256:" + "a" * 64, "bob": "sha256:" + "b" * 64}
LAYER = "sha256:" + "1" * 64
GONE = {"username": "alice"}


async def tar(content):
    yield content


async def nothing(_image):
    """What forgets an appliance, where there is none."""


@pytest.fixture
def registries(database, vault, page_tokens):
    return Registries(database=database, vault=vault, page_tokens=page_tokens)


@pytest.fixture
def departures(store, events, publications, registries, locations, contexts, idempotency_keys, retention, images):
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
    return Departures(parts=parts, images=images, inside=SimpleNamespace(forget=nothing), settle_seconds=0)


@pytest.fixture
async def belongings(database, outbox, ready, departures):
    """Each of two users has one of everything, and they have sent the same archive."""
    made, parts, images = {}, departures._parts, departures._images
    for owner in ("alice", "bob"):
        image = (await ready("shop", DISKS[owner], [LAYER], owner=owner)).id
        building = await images.create(ImageWish(name="other"), owner=owner)
        upload = await parts.contexts.receive(tar(b"same"), owner=owner)
        place = DirectoryPlace(path=parts.locations._directories[0].format(user=owner))
        await parts.locations.add("here", place, owner=owner)
        await parts.registries.add(
            RegistryWish(host="reg.example", username="me", password="hush"), owner=owner, clients=None
        )
        publication = NewPublication(owner=owner, image_id=image, reference="shop:latest", location="here")
        async with database.write() as session:
            await parts.publications.request(session, publication, outbox=outbox)
        await parts.idempotency_keys.take(_Key(owner, "/m", "k"), b"hash")
        made[owner] = SimpleNamespace(image=image, building=building, upload=upload, publication=publication.id)
    return made


async def test_nothing_of_theirs_is_left(
    departures, belongings, store, contexts, registries, locations, publications, database
):
    await departures.handle("uhm.users.deleted", GONE)

    assert await store.page(owner="alice", before=None, limit=10) == []
    assert await publications.page(owner="alice", before=None, limit=10) == []
    with pytest.raises(NoSuchRegistry):
        await registries.get("reg.example", owner="alice")
    with pytest.raises(NoSuchStorage):
        await locations.get("here", owner="alice")
    assert (await contexts.received(belongings["alice"].upload.digest, owner="alice")).size == 0
    async with database.read() as session:
        assert list(await session.scalars(select(IDEMPOTENCY_KEYS.c.owner))) == ["bob"]
        told = await session.execute(select(OUTBOX.c.payload).where(OUTBOX.c.subject == "uhm.images.deleted"))
        assert [payload["id"] for (payload,) in told] == [belongings["alice"].image]


async def test_what_others_have_stays(departures, belongings, store, contexts, registries, locations, publications):
    await departures.handle("uhm.users.deleted", GONE)

    assert {image.id for image in await store.page(owner="bob", before=None, limit=10)} == {
        belongings["bob"].image,
        belongings["bob"].building,
    }
    assert (await publications.get(belongings["bob"].publication)).status is PublicationStatus.PUBLISHING
    assert (await registries.get("reg.example", owner="bob")).username == "me"
    assert (await locations.get("here", owner="bob")).name == "here"
    assert (await contexts.path(belongings["bob"].upload.id, owner="bob")).read_bytes() == b"same"


async def test_what_runs_is_told_to_end(departures, belongings, events):
    await departures.handle("uhm.users.deleted", GONE)

    assert events.published == [
        (f"uhm.builds.{belongings['alice'].building}.cancel", {}),
        (f"uhm.publications.{belongings['alice'].publication}.cancel", {}),
    ]


async def test_an_image_that_a_machine_holds_goes_when_the_machine_has_gone(departures, belongings, store, artifacts):
    artifacts.take_lease(DISKS["alice"], holder="machine")
    with pytest.raises(ImageInUse):
        await departures.handle("uhm.users.deleted", GONE)
    assert [image.id for image in await store.page(owner="alice", before=None, limit=10)] == [belongings["alice"].image]
    artifacts.drop_lease(DISKS["alice"], holder="machine")

    await departures.handle("uhm.users.deleted", GONE)
    assert await store.page(owner="alice", before=None, limit=10) == []


async def test_hearing_of_it_twice_does_no_harm(departures, belongings, store):
    for _ in range(2):
        await departures.handle("uhm.users.deleted", GONE)

    assert len(await store.page(owner="bob", before=None, limit=10)) == 2


async def test_the_beginning_of_an_upload_goes_too(departures, contexts, tmp_path):
    async def broken_off():
        yield b"beginning"
        raise ConnectionError

    digest = "sha256:" + "d" * 64
    for owner in ("alice", "bob"):
        with pytest.raises(ConnectionError):
            await contexts.receive(broken_off(), owner=owner, digest=digest)

    await departures.handle("uhm.users.deleted", GONE)
    assert (await contexts.received(digest, owner="alice")).size == 0
    assert (await contexts.received(digest, owner="bob")).size == len(b"beginning")


@pytest.mark.parametrize("payload", [{}, {"username": 1}])
async def test_an_event_that_names_nobody_is_passed_over(departures, belongings, store, payload):
    await departures.handle("uhm.users.deleted", payload)

    assert len(await store.page(owner="alice", before=None, limit=10)) == 2
