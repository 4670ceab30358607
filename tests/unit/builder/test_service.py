"""What clients can do with images."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from uhm_builder.errors import (
    AmbiguousId,
    InvalidContext,
    InvalidReference,
    NoSuchContext,
    NoSuchImage,
)
from uhm_builder.images import BuildContext, ImageWish, Status
from uhm_builder.models import OUTBOX, ImageRow
from uhm_common.paging import InvalidPageToken


async def pieces(*parts):
    for part in parts:
        yield part


async def finish(database, store, image_id, *, status=Status.READY):
    claim = await store.claim(image_id, now=2**62, lease_until=2**62)
    async with database.write() as session:
        await store.finish(session, claim, {"status": status, "disk_digest": f"sha256:{image_id}"})


async def test_a_wish_is_a_row_and_an_event(database, images, store):
    image_id = await images.create(ImageWish(name="nginx", tag="1.27"), owner="alice")

    image = await store.get(image_id)
    assert (image.reference, image.owner, image.status) == ("nginx:1.27", "alice", Status.BUILDING)
    async with database.read() as session:
        (event,) = (await session.execute(select(OUTBOX))).all()
    assert (event.subject, event.message_id, event.payload) == ("uhm.builds.requested", image_id, {"id": image_id})


async def test_a_malformed_reference_is_refused_at_once(images, store):
    with pytest.raises(InvalidReference, match="'Bad!'"):
        await images.create(ImageWish(name="Bad!"), owner="alice")

    assert await store.building() == []


@pytest.mark.parametrize(
    ("name", "context", "error"),
    [
        ("shop", BuildContext(id="0" * 32), NoSuchContext),
        ("shop", BuildContext(id="../../etc/passwd"), NoSuchContext),
        ("shop", BuildContext(id="x", dockerfile="../Dockerfile"), InvalidContext),
        ("shop", BuildContext(id="x", dockerfile="/Dockerfile"), InvalidContext),
        ("docker-daemon:shop", BuildContext(id="x"), InvalidReference),
        ("shop@sha256:" + "ab" * 32, BuildContext(id="x"), InvalidReference),
        ("", BuildContext(id="x"), InvalidReference),
    ],
)
async def test_a_build_that_cannot_be_is_refused_at_once(images, name, context, error):
    with pytest.raises(error):
        await images.create(ImageWish(name=name, source=context), owner="alice")


async def test_a_context_serves_its_owner(images, contexts, store):
    upload = await contexts.receive(pieces(b"tar"), owner="alice")

    with pytest.raises(NoSuchContext):
        await images.create(ImageWish(name="shop", source=BuildContext(id=upload.id)), owner="bob")
    image_id = await images.create(
        ImageWish(name="shop", source=BuildContext(id=upload.id, dockerfile="")), owner="alice"
    )

    assert (await store.get(image_id)).context.dockerfile == "Dockerfile"


async def test_an_image_is_found_by_id_prefix_and_reference(database, images, store):
    image_id = await images.create(ImageWish(name="nginx"), owner="alice")
    await finish(database, store, image_id)

    for name in (image_id, image_id[:4], image_id[:31], "nginx", "nginx:latest", "docker.io/library/nginx"):
        assert (await images.get(name, owner="alice")).id == image_id
        with pytest.raises(NoSuchImage):
            await images.get(name, owner="bob")


async def test_a_reference_stands_for_what_is_ready(database, images, store):
    ready = await images.create(ImageWish(name="nginx"), owner="alice")
    await finish(database, store, ready)
    failed = await images.create(ImageWish(name="nginx"), owner="alice")
    await finish(database, store, failed, status=Status.FAILED)

    assert (await images.get("nginx", owner="alice")).id == ready
    assert (await images.newest("nginx", owner="alice")).id == failed
    assert (await images.get_deletable("nginx", owner="alice")).id == ready


async def test_what_is_not_ready_yet_is_said_so(images):
    image_id = await images.create(ImageWish(name="nginx"), owner="alice")

    with pytest.raises(NoSuchImage, match=f"{image_id}, is building"):
        await images.get("nginx", owner="alice")
    assert (await images.get_deletable("nginx", owner="alice")).id == image_id


@pytest.mark.parametrize("name", ["nginx", "0" * 32, "0" * 8, "abc"])
async def test_what_is_not_there_is_named(images, name):
    with pytest.raises(NoSuchImage, match=name):
        await images.get(name, owner="alice")


async def test_the_beginning_of_two_ids_is_neither(images, monkeypatch):
    ids = iter(["abcd" + "0" * 28, "abcd" + "1" * 28])
    monkeypatch.setattr("uhm_builder.service.uuid.uuid4", lambda: type("U", (), {"hex": next(ids)}))
    await images.create(ImageWish(name="a"), owner="alice")
    await images.create(ImageWish(name="b"), owner="alice")

    with pytest.raises(AmbiguousId):
        await images.get("abcd", owner="alice")
    assert (await images.get("abcd0", owner="alice")).reference == "a:latest"


async def test_pages_follow_each_other(images):
    ids = [await images.create(ImageWish(name=f"a{number}"), owner="alice") for number in range(5)]

    first = await images.page(size=2, token="", reference="", owner="alice")
    second = await images.page(size=2, token=first.next_token, reference="", owner="alice")
    third = await images.page(size=2, token=second.next_token, reference="", owner="alice")

    assert [image.id for page in (first, second, third) for image in page.images] == ids[::-1]
    assert third.next_token == ""


async def test_a_list_can_be_of_one_name(images):
    for reference in ("nginx", "nginx:1.27", "nginx-extra"):
        await images.create(ImageWish(name=reference), owner="alice")

    async def listed(reference):
        page = await images.page(size=0, token="", reference=reference, owner="alice")
        return [image.reference for image in page.images]

    assert await listed("nginx") == ["nginx:1.27", "nginx:latest"]
    assert await listed("nginx:1.27") == ["nginx:1.27"]
    with pytest.raises(InvalidReference):
        await listed("Bad!")


@pytest.mark.parametrize("asked", [{"reference": "a0"}, {"owner": "bob"}, {"token": "x"}])
async def test_a_token_of_another_list_is_refused(images, asked):
    for number in range(2):
        await images.create(ImageWish(name=f"a{number}"), owner="alice")
    token = (await images.page(size=1, token="", reference="", owner="alice")).next_token

    with pytest.raises(InvalidPageToken):
        await images.page(**{"size": 1, "token": token, "reference": "", "owner": "alice"} | asked)


async def test_cancelling_tells_the_worker_and_drops_the_secrets(images, events, contexts, secrets):
    upload = await contexts.receive(pieces(b"tar"), owner="alice")
    wish = ImageWish(name="shop", source=BuildContext(id=upload.id), secrets={"token": b"hush"})
    image_id = await images.create(wish, owner="alice")
    assert secrets.holds(image_id)

    assert (await images.cancel(image_id, owner="alice")).status is Status.CANCELLED
    assert (await images.cancel(image_id, owner="alice")).status is Status.CANCELLED

    assert events.published == [(f"uhm.builds.{image_id}.cancel", {})]
    assert not secrets.holds(image_id)
    assert (await contexts.path(upload.id, owner="alice")).is_file()


async def test_secrets_are_not_in_the_row_nor_in_the_event(database, images, contexts, store):
    upload = await contexts.receive(pieces(b"tar"), owner="alice")
    wish = ImageWish(name="shop", source=BuildContext(id=upload.id), secrets={"token": b"hush-hush"})

    image = await store.get(await images.create(wish, owner="alice"))

    assert image.context.secret_ids == ("token",)
    assert "hush" not in repr(wish)
    async with database.read() as session:
        (event,) = (await session.execute(select(OUTBOX))).all()
        row = (await session.scalars(select(ImageRow))).one()
    assert "hush" not in repr((event, row.context, image))


@pytest.mark.parametrize(
    "wish",
    [
        {"secrets": {"a,src=/etc/shadow": b""}},
        {"secrets": {"": b""}},
        {"secrets": {"one": bytes(300_000), "two": bytes(300_000)}},
        {"build_args": {"A": "x" * 200_000}},
        {"build_args": {"A": "\0"}},
        {"build_args": {"A=B": "x"}},
        {"target": "\0"},
    ],
)
async def test_what_no_build_can_have_is_refused(images, contexts, store, wish):
    upload = await contexts.receive(pieces(b"tar"), owner="alice")
    secrets = wish.pop("secrets", {})

    with pytest.raises(InvalidContext):
        await images.create(
            ImageWish(name="shop", source=BuildContext(id=upload.id, **wish), secrets=secrets), owner="alice"
        )
    assert await store.building() == []


async def test_others_cannot_cancel(images, store):
    image_id = await images.create(ImageWish(name="nginx"), owner="alice")

    with pytest.raises(NoSuchImage):
        await images.cancel(image_id, owner="bob")
    assert (await store.get(image_id)).status is Status.BUILDING
