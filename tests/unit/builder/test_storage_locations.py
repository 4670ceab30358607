"""Storage locations: whose they are, where they may be, and what is stored of their secrets."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tests.unit.builder.put_server import PutServer
from uhm_builder.errors import (
    HostDenied,
    InvalidReference,
    InvalidStorage,
    NoSuchStorage,
    StorageExists,
    StorageRefused,
    StorageUnreachable,
)
from uhm_builder.hosts import HostRules
from uhm_builder.models import LocationRow
from uhm_builder.sources.reference import parse_reference
from uhm_builder.storage.content import Content
from uhm_builder.storage.layouts import RegistryLayout
from uhm_builder.storage.locations import Locations
from uhm_builder.storage.objects import Resume, read_document
from uhm_builder.storage.places import DirectoryPlace, RegistryPlace, S3Place, WebDavPlace, checked, place_of, record_of

S3 = S3Place(endpoint="http://127.0.0.1:1", bucket="disks", prefix="", region="", access_key_id="id", secret="hush")
REGISTRY = RegistryPlace(repository="127.0.0.1:1/team/disks", username="me", secret="hush")
WEBDAV = WebDavPlace(url="http://127.0.0.1:1/dav", username="me", secret="hush")


async def test_a_directory_is_its_owners_own(locations, tmp_path):
    for owner in ("alice", "bob"):
        await locations.add("home", DirectoryPlace(path="disks"), owner=owner)
        async with locations.open("home", owner=owner) as opened:
            await opened.store.put("whose", Content.of(owner.encode()), resume=Resume())
    for owner in ("alice", "bob"):
        assert (tmp_path / "published" / owner / "disks" / "whose").read_text() == owner
        async with locations.open("home", owner=owner) as opened:
            assert await read_document(opened.store, "whose", at_most=100) == owner.encode()


@pytest.mark.parametrize(
    "path", ["/etc", "../bob/disks", "{tmp}/published/bob", "{tmp}/published/alice/../bob", "{tmp}/published/alicette"]
)
async def test_a_directory_elsewhere_is_refused(locations, tmp_path, path):
    with pytest.raises(InvalidStorage, match="is not below a directory"):
        await locations.add("home", DirectoryPlace(path=path.format(tmp=tmp_path)), owner="alice")
    assert await locations.page(owner="alice", before=None, limit=10) == []


async def test_a_link_out_of_the_allowed_directory_is_refused(locations, tmp_path):
    (tmp_path / "published" / "alice").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "published" / "alice" / "disks").symlink_to(tmp_path / "outside")

    with pytest.raises(Exception, match="Symbolic links in it are not followed"):
        await locations.add("home", DirectoryPlace(path="disks"), owner="alice")

    assert list((tmp_path / "outside").iterdir()) == []


async def test_what_a_user_leaves_is_only_what_nobody_else_could_use(database, vault, tmp_path):
    outside, shared, own = tmp_path / "outside", tmp_path / "shared", tmp_path / "own"
    for path in (outside / "file", shared / "file", own / "alice" / "disks" / "file", own / "bob" / "file"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"content")
    (own / "alice" / "file").symlink_to(outside / "file")
    (own / "alice" / "directory").symlink_to(outside)
    locations = Locations(
        database=database, vault=vault, directories=(str(shared), f"{own}/{{user}}"), rules=HostRules()
    )

    for owner in ("alice", "nobody"):
        await locations.delete_all(owner=owner, before=2**62)

    assert sorted(str(path.relative_to(own)) for path in own.rglob("*")) == [
        "alice",
        "alice/directory",
        "bob",
        "bob/file",
    ]
    assert (outside / "file").exists()
    assert (shared / "file").exists()


async def test_what_others_have_does_not_exist(locations):
    await locations.add("home", DirectoryPlace(path="."), owner="alice")
    for call in (locations.get, locations.delete):
        with pytest.raises(NoSuchStorage):
            await call("home", owner="bob")
    with pytest.raises(NoSuchStorage):
        async with locations.open("home", owner="bob"):
            pass
    with pytest.raises(StorageExists):
        await locations.add("home", DirectoryPlace(path="."), owner="alice")


@pytest.mark.parametrize("place", [S3, REGISTRY, WEBDAV])
async def test_a_location_that_does_not_answer_is_not_added(locations, place):
    with pytest.raises(StorageUnreachable, match=r"Nothing can be written there\. .*127\.0\.0\.1:1"):
        await locations.add("far", place, owner="alice")
    with pytest.raises(NoSuchStorage):
        await locations.get("far", owner="alice")


async def test_a_location_that_keeps_something_else_is_not_added(locations):
    with (
        PutServer(kept=bytes.upper) as server,
        pytest.raises(StorageRefused, match=r"Nothing can be written there\. .*is not what was sent"),
    ):
        await locations.add("odd", WebDavPlace(url=server.url, username=""), owner="alice")


@pytest.mark.parametrize(
    "place",
    [
        S3Place(
            endpoint="http://169.254.169.254", bucket="latest", prefix="", region="", access_key_id="a", secret="b"
        ),
        RegistryPlace(repository="169.254.169.254/team/disks", username=""),
        WebDavPlace(url="http://[fe80::1]/", username=""),
    ],
)
async def test_a_host_that_is_denied_is_never_connected_to(locations, place):
    with pytest.raises(HostDenied):
        await locations.add("metadata", place, owner="alice")


@pytest.mark.parametrize("name", ["", "Home", "a" * 64, "-a", "a/b", "a_b", "a\n"])
async def test_a_name_that_is_none(locations, name):
    with pytest.raises(InvalidStorage, match="is not a name"):
        await locations.add(name, DirectoryPlace(path="."), owner="alice")


async def test_a_secret_is_nowhere_in_clear_and_bound_to_its_location(database, locations, monkeypatch):
    async def nothing(opened):
        pass

    monkeypatch.setattr("uhm_builder.storage.locations.try_out", nothing)
    for name in ("one", "two"):
        await locations.add(name, S3, owner="alice")
    assert "hush" not in repr(await locations.get("one", owner="alice"))
    async with database.write() as session:
        rows = {row.name: row for row in await session.scalars(select(LocationRow))}
        assert b"hush" not in rows["one"].secret
        assert "hush" not in str(rows["one"].place)
        rows["one"].secret = rows["two"].secret
    with pytest.raises(Exception, match="cannot be decrypted"):
        async with locations.open("one", owner="alice"):
            pass


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (S3Place(endpoint="ftp://x", bucket="disks", prefix="", region="", access_key_id="a", secret="b"), "endpoint"),
        (S3Place(endpoint="", bucket="a/b", prefix="", region="", access_key_id="a", secret="b"), "bucket"),
        (S3Place(endpoint="", bucket="disks", prefix="../x", region="", access_key_id="a", secret="b"), "prefix"),
        (S3Place(endpoint="", bucket="disks", prefix="", region="", access_key_id="", secret=""), "access key"),
        (WebDavPlace(url="http://me:secret@host/", username=""), "WebDAV URL"),
        (WebDavPlace(url="file:///etc", username=""), "WebDAV URL"),
        (WebDavPlace(url="http://host/\r\nX: y", username=""), "characters"),
        (RegistryPlace(repository="team/disks", username=""), "repository"),
        (RegistryPlace(repository="host.example/team/disks:tag", username=""), "repository"),
        (RegistryPlace(repository="storage:home/x", username=""), "repository"),
    ],
)
def test_what_cannot_be_a_place(place, problem):
    with pytest.raises(InvalidStorage, match=problem):
        checked(place)


@pytest.mark.parametrize("place", [S3, REGISTRY, WEBDAV, DirectoryPlace(path="/x")])
def test_a_place_is_read_back_without_its_secret(place):
    record = record_of(place)
    assert "hush" not in str(record)
    secret = getattr(place, "secret", "")
    assert place_of(record, secret=secret) == place


@pytest.mark.parametrize("text", ["app:1-uhm", f"app:{'a' * 125}", "uhm-index", "docker.io/uhm-index:1"])
def test_what_would_overwrite_something_of_ours_is_not_published_in_a_registry(text):
    with pytest.raises(InvalidStorage, match="cannot be published in a registry"):
        RegistryLayout().check(parse_reference(text), format="qcow2")


@pytest.mark.parametrize("text", ["app:1-uhm2", "app-uhm:1", f"app:{'a' * 124}", "ghcr.io/me/uhm-index:1"])
def test_what_only_looks_like_it_is_published_in_a_registry(text):
    RegistryLayout().check(parse_reference(text), format="qcow2")


def test_a_reference_to_a_location():
    reference = parse_reference("storage:home/ghcr.io/owner/app:1")
    assert (reference.location, reference.name, reference.tag) == ("home", "ghcr.io/owner/app", "1")
    assert str(reference) == "storage:home/ghcr.io/owner/app:1"
    assert str(parse_reference("storage:home/nginx")) == "storage:home/nginx:latest"


@pytest.mark.parametrize(
    "text",
    [
        "storage:",
        "storage:home",
        "storage:/nginx",
        "storage:Home/x",
        "storage:home/docker-daemon:x",
        "storage:home/storage:b/x",
    ],
)
def test_what_is_no_reference_to_a_location(text):
    with pytest.raises(InvalidReference):
        parse_reference(text)
