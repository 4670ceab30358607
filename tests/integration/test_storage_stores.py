"""What every storage location can do, asked of real servers of each kind by the same tests."""
# ruff: noqa: ASYNC221 - tests may wait

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime

import boto3
import pytest
from botocore.config import Config

from tests.storage_servers import (
    BUCKET,
    PASSWORD,
    USER,
    WORD,
    DockerRegistry,
    RcloneS3,
    RcloneWebDav,
    SeaweedS3,
    running,
)
from uhm_builder.errors import (
    ContentMismatch,
    NotAtStorage,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnreachable,
)
from uhm_builder.hosts import HostRules
from uhm_builder.images import ImageConfig
from uhm_builder.sources.reference import parse_reference
from uhm_builder.storage.beneath import Beneath
from uhm_builder.storage.content import Content
from uhm_builder.storage.directory import DirectoryStore
from uhm_builder.storage.document import parse_document
from uhm_builder.storage.index import read_index, renew_index
from uhm_builder.storage.layouts import DiskFile, ObjectLayout, Publishable, RegistryLayout
from uhm_builder.storage.objects import Resume, read_document
from uhm_builder.storage.places import RegistryPlace, S3Place, WebDavPlace
from uhm_builder.storage.registry import RegistryStore
from uhm_builder.storage.s3 import S3Store
from uhm_builder.storage.webdav import WebDavStore

pytestmark = pytest.mark.integration

KINDS = ("directory", "rclone-s3", "seaweed", "webdav", "registry")
LARGE = 20 << 20


def s3_place(server) -> S3Place:
    return S3Place(
        endpoint=f"http://{server.host}",
        bucket=BUCKET,
        prefix="team/a b",
        region="",
        access_key_id=USER,
        secret=PASSWORD,
    )


def make_bucket(server) -> None:
    boto3.client(
        "s3",
        endpoint_url=f"http://{server.host}",
        aws_access_key_id=USER,
        aws_secret_access_key=PASSWORD,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 10}),
    ).create_bucket(Bucket=BUCKET)


@pytest.fixture(scope="module")
def rclone_s3():
    with running(RcloneS3()) as server:
        yield server


@pytest.fixture(scope="module")
def seaweed():
    with running(SeaweedS3()) as server:
        make_bucket(server)
        yield server


@pytest.fixture(scope="module")
def webdav():
    with running(RcloneWebDav()) as server:
        yield server


@pytest.fixture(scope="module")
def registry():
    with running(DockerRegistry()) as server:
        yield server


@pytest.fixture(params=KINDS)
async def store(request, tmp_path):
    if request.param == "directory":
        opened = DirectoryStore(Beneath(tmp_path, "some/where"))
    else:
        opened = open_store(request.getfixturevalue(request.param.replace("-", "_")))
    yield opened
    await opened.close()


def name_of(store, content: Content, name: str) -> str:
    """A registry takes blobs under their digests only."""
    return f"some/blobs/{content.digest}" if isinstance(store, RegistryStore) else name


def open_store(server):
    """A location at a server."""
    match server:
        case RcloneS3() | SeaweedS3():
            return S3Store(s3_place(server), rules=HostRules())
        case RcloneWebDav():
            url = f"http://{server.host}/some/where"
            return WebDavStore(WebDavPlace(url=url, username=USER, secret=WORD), rules=HostRules())
    return RegistryStore(RegistryPlace(repository=f"{server.host}/team/disks", username=""), rules=HostRules())


async def read(store, name, **more) -> bytes:
    return b"".join([piece async for piece in store.get(name, **more)])


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE + 17])
async def test_what_is_put_is_there_and_can_be_read_in_parts(store, size, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    content = Content.of(b"head", file, b"tail")
    name = name_of(store, content, f"images/a b/ü/{size}.bin")
    told: list[int] = []

    await store.put(name, content, resume=Resume(), report=told.append)

    whole = b"head" + file.read_bytes() + b"tail"
    stored = await store.stat(name)
    assert (stored.name, stored.size) == (name, len(whole))
    assert stored.version
    assert told[-1] == len(whole)
    assert hashlib.sha256(await read(store, name)).hexdigest() == hashlib.sha256(whole).hexdigest()
    assert await read(store, name, offset=2, length=4) == whole[2:6]
    assert await read(store, name, offset=len(whole) - 3) == whole[-3:]


async def test_what_is_there_is_found_and_not_sent_again(store, tmp_path):
    content = Content.of(os.urandom(1000))
    name = name_of(store, content, "layers/one")
    await store.put(name, content, resume=Resume())
    version = (await store.stat(name)).version

    await store.put(name, content, resume=Resume())

    assert (await store.stat(name)).version == version


async def test_what_was_changed_there_is_replaced(store):
    if isinstance(store, RegistryStore):
        pytest.skip("a registry's blobs are named by their content")
    for body in (b"one", b"two", b"a longer one"):
        await store.put("images/x/manifest.json", Content.of(body), resume=Resume())
        assert await read_document(store, "images/x/manifest.json", at_most=100) == body


async def test_what_is_not_there(store):
    content = Content.of(b"nobody has put this")
    name = name_of(store, content, "no/such/thing")
    assert await store.stat(name) is None
    with pytest.raises(NotAtStorage):
        await read(store, name)
    await store.delete(name)


async def test_what_is_deleted_is_gone(store):
    content = Content.of(os.urandom(100))
    name = name_of(store, content, "gone/soon")
    await store.put(name, content, resume=Resume())

    await store.delete(name)

    assert await store.stat(name) is None


async def test_the_listing_has_what_lies_below(store):
    if isinstance(store, RegistryStore):
        pytest.skip("a registry lists tags: see the next test")
    names = {f"listed/{name}" for name in ("a/b/manifest.json", "a/c/manifest.json", "d")}
    for name in names:
        await store.put(name, Content.of(name.encode()), resume=Resume())
    await store.put("listed-not/a", Content.of(b"x"), resume=Resume())

    found = await store.listing("listed/")

    assert {(each.name, each.size) for each in found} == {(name, len(name)) for name in names}
    assert all(each.version for each in found)
    assert await store.listing("nothing/here/") == []


@pytest.fixture
def small_parts(monkeypatch):
    """Uploads in parts as small as S3 takes them, so that little is sent."""
    monkeypatch.setattr("uhm_builder.storage.s3.PART", 5 << 20)
    monkeypatch.setattr("uhm_builder.storage.s3.PARTS_AT_ONCE", 1)
    monkeypatch.setattr("uhm_builder.storage.registry.CHUNK", 5 << 20)


def sent_bytes(store) -> list[int]:
    """Lengths of the bodies that are sent from here on."""
    sizes: list[int] = []
    if isinstance(store, S3Store):
        store._client.meta.events.register(
            "before-parameter-build.s3.UploadPart", lambda params, **_: sizes.append(len(params["Body"]))
        )
    else:

        async def sending(request):
            if request.method in ("PUT", "PATCH"):
                sizes.append(int(request.headers.get("Content-Length", 0)))

        store._client.event_hooks["request"].append(sending)
    return sizes


class KillsAfter(Resume):
    """Kills the server between two chunks: Debian's registry does not go on from the middle of one."""

    def __init__(self, server, *, tokens: int) -> None:
        super().__init__()
        self.server, self.left = server, tokens

    async def keep(self, token: str) -> None:
        await super().keep(token)
        self.left -= 1
        if self.left == 0:
            self.server.kill()


@pytest.mark.parametrize(
    ("kind", "resumes"), [(RcloneS3, False), (SeaweedS3, True), (RcloneWebDav, False), (DockerRegistry, True)]
)
async def test_a_server_that_is_killed_in_the_middle(kind, resumes, small_parts, tmp_path):
    """No part of the object is there as the object; the next try goes on where the server can."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(22 << 20))
    content = Content.of(file)
    with running(kind()) as server:
        resume = KillsAfter(server, tokens=3) if kind is DockerRegistry else Resume()
        if kind is SeaweedS3:
            make_bucket(server)
        store = open_store(server)
        name = name_of(store, content, "images/app/latest/app.qcow2")

        def kill(done: int) -> None:
            if done > 11 << 20:
                server.kill()

        with pytest.raises(StorageUnreachable):
            await store.put(name, content, resume=resume, report=kill)
        await store.close()
        server.start()
        store = open_store(server)
        assert await store.stat(name) is None
        sizes = sent_bytes(store)

        await store.put(name, content, resume=resume)

        assert (await store.stat(name)).size == content.size
        assert hashlib.sha256(await read(store, name)).hexdigest() == content.digest.removeprefix("sha256:")
        assert resume.token == ""
        assert (sum(sizes) < content.size) is resumes
        await store.close()


async def test_an_upload_that_the_server_has_forgotten_begins_anew(small_parts, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(12 << 20))
    content = Content.of(file)
    for server in (RcloneS3(), DockerRegistry()):
        with running(server):
            store = open_store(server)
            name = name_of(store, content, "images/app/latest/app.qcow2")
            token = f"http://{server.host}/v2/team/disks/some/blobs/uploads/nothing?_state=x"
            resume = Resume("nothing" if isinstance(store, S3Store) else token)

            await store.put(name, content, resume=resume)

            assert (await store.stat(name)).size == content.size
            await store.close()


async def cancelled_in_the_middle(store, name, content, resume) -> None:
    def report(done: int) -> None:
        if done > content.size // 3:
            task.cancel()

    task = asyncio.create_task(store.put(name, content, resume=resume, report=report))
    await task


async def test_an_upload_that_is_given_up_is_forgotten_there(small_parts, tmp_path, seaweed, registry):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(16 << 20))
    content = Content.of(file)
    for server in (seaweed, registry):
        store = open_store(server)
        name = name_of(store, content, "images/app/given-up.qcow2")
        resume = Resume()
        with pytest.raises(asyncio.CancelledError):
            await cancelled_in_the_middle(store, name, content, resume)
        assert resume.token

        await store.abandon(name, resume.token)

        if isinstance(store, S3Store):
            assert await store._parts_there(name, resume.token) is None
        else:
            assert await store._offset("team/disks/some", resume.token) is None
        await store.close()


@pytest.mark.parametrize("kind", ["rclone_s3", "seaweed", "webdav"])
async def test_wrong_credentials_are_told_as_such(request, kind):
    server = request.getfixturevalue(kind)
    if kind == "webdav":
        place = WebDavPlace(url=f"http://{server.host}/x", username=USER, secret="wrong")
        store = WebDavStore(place, rules=HostRules())
    else:
        store = S3Store(replace(s3_place(server), secret="wrong"), rules=HostRules())
    with pytest.raises(StorageDenied, match="denied"):
        await store.put("images/x", Content.of(b"x"), resume=Resume())
    await store.close()


async def test_a_bucket_that_is_not_there(rclone_s3):
    store = S3Store(replace(s3_place(rclone_s3), bucket="nowhere"), rules=HostRules())
    with pytest.raises(NotAtStorage, match="no such bucket"):
        await store.put("images/x", Content.of(b"x"), resume=Resume())
    await store.close()


async def test_a_directory_whose_file_system_is_full(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = DirectoryStore(Beneath(tmp_path, "disks"))
        with pytest.raises(StorageFull, match="is full"):
            await store.put("images/large", Content.of(os.urandom(8 << 20)), resume=Resume())
        assert await store.stat("images/large") is None
        assert list((tmp_path / "disks" / "images").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


async def test_what_a_crash_left_half_written_is_swept(tmp_path):
    left = tmp_path / "images" / ".uhm-left"
    left.parent.mkdir()
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    store = DirectoryStore(Beneath(tmp_path, ""))

    await store.put("images/next", Content.of(b"next"), resume=Resume())

    assert [path.name for path in left.parent.iterdir()] == ["next"]


async def test_what_the_far_end_damages_is_noticed(tmp_path):
    """A server that stores something else than it was sent: the object never gets its name."""
    with running(RcloneWebDav()) as server:
        store = open_store(server)
        sends = store._send

        async def damaged(name, content, report):
            await sends(name, Content.of(b"X" * content.size), report)

        store._send = damaged
        with pytest.raises(ContentMismatch, match="is not what was sent"):
            await store.put("images/x", Content.of(b"right"), resume=Resume())
        assert await store.stat("images/x") is None
        assert await store.listing("images/") == []
        await store.close()


def publishable(number: int, tmp_path) -> Publishable:
    """A small thing that has the form of an image."""
    disk = tmp_path / f"disk-{number}"
    disk.write_bytes(f"disk {number}".encode())
    content = Content.of(disk)
    return Publishable(
        reference=parse_reference(f"team/app-{number % 3}:{number}"),
        digest=content.digest,
        config=ImageConfig(cmd=("x",), architecture="amd64"),
        layers=(("sha256:" + "1" * 64, Content.of(bytes(1 << 20))),),
        disk=DiskFile(path=disk, size=content.size, digest=content.digest, format="qcow2", suffix="qcow2"),
        published_at=datetime.now(UTC),
    )


async def test_publishers_at_the_same_moment_lose_nothing_of_each_other(request, store, tmp_path):
    layout = RegistryLayout() if isinstance(store, RegistryStore) else ObjectLayout()

    async def publish(number: int) -> None:
        uploads = layout.uploads(publishable(number, tmp_path))
        for upload in uploads:
            await store.put(upload.name, upload.content, resume=Resume())
        last = uploads[-1]
        await renew_index(store, layout, name=last.name, document=last.content.read(0, 1 << 20))

    await asyncio.gather(*map(publish, range(5)))

    entries = await read_index(store, layout)
    assert sorted(entry.image.reference for entry in entries) == sorted(f"team/app-{n % 3}:{n}" for n in range(5))
    again = await layout.document(store, parse_reference("team/app-1:4"))
    assert parse_document(again, name="x").digest == publishable(4, tmp_path).digest


async def test_an_index_that_cannot_be_read_is_made_anew(tmp_path):
    store, layout = DirectoryStore(Beneath(tmp_path, "")), ObjectLayout()
    uploads = layout.uploads(publishable(1, tmp_path))
    for upload in uploads:
        await store.put(upload.name, upload.content, resume=Resume())
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(StorageRefused, match="cannot be read"):
        await read_index(store, layout)

    await renew_index(store, layout, name=uploads[-1].name, document=b"")

    assert [entry.image.reference for entry in await read_index(store, layout)] == ["team/app-1:1"]


async def test_a_container_disk_is_what_kubevirt_wants(registry, tmp_path):
    store = open_store(registry)
    for upload in RegistryLayout().uploads(publishable(7, tmp_path)):
        await store.put(upload.name, upload.content, resume=Resume())
    manifest = json.loads(await read(store, "team/app-1/manifests/7"))
    config = json.loads(await read(store, f"team/app-1/blobs/{manifest['config']['digest']}"))
    (layer,) = manifest["layers"]
    archive = await read(store, f"team/app-1/blobs/{layer['digest']}")

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        directory, file = tar.getmembers()
        assert (directory.name, directory.isdir()) == ("disk", True)
        assert (file.name, file.uid, file.gid) == ("disk/app-1.qcow2", 107, 107)
        assert tar.extractfile(file).read() == b"disk 7"
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    await store.close()
