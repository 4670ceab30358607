"""Pulling from a storage location that nobody trusts: what comes, under which name, and what is refused."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest

from uhm_builder.errors import ContentMismatch, LayerTooLarge, NotAtStorage, StorageRefused, UnsupportedImage
from uhm_builder.images import Healthcheck, ImageConfig
from uhm_builder.sources.platforms import TargetPlatform
from uhm_builder.sources.reference import parse_reference
from uhm_builder.sources.storage import StorageSource, layer_name
from uhm_builder.storage.beneath import Beneath
from uhm_builder.storage.content import Content
from uhm_builder.storage.directory import DirectoryStore
from uhm_builder.storage.document import Document, DocumentLayer, parse_document
from uhm_builder.storage.objects import Resume
from uhm_builder.storage.places import DirectoryPlace

CONFIG = ImageConfig(
    cmd=("serve",),
    architecture="amd64",
    labels={"a": "b"},
    healthcheck=Healthcheck(command=("/ok",), interval_ns=1, timeout_ns=2, start_period_ns=0, retries=3),
)


class NoReporter:
    def progress(self, **_):
        pass

    def output(self, line):
        pass


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@pytest.fixture
def make_erofs(maker, artifacts, make_tar, tmp_path):
    """Makes an EROFS file system of a file, by the real program; answers it and the diffID of its archive."""

    async def make(content: bytes) -> tuple[bytes, str]:
        archive = make_tar({"file": content})

        async def fill(into):
            into.write(archive)

        layer = await maker.make(digest_of(archive), fill)
        blob = artifacts.layer(layer.diff_id)
        body = blob.read_bytes()
        blob.unlink()
        return body, layer.diff_id

    return make


@pytest.fixture
def published(locations, tmp_path):
    """Has a document, and blobs under the names of their digests, at alice's location `home`."""

    async def publish(*layers: DocumentLayer, blobs: tuple[bytes, ...] = (), **fields):
        await locations.add("home", DirectoryPlace(path="disks"), owner="alice")
        document = Document(
            reference="app:latest",
            digest="sha256:" + "0" * 64,
            published_at=datetime.now(UTC),
            config=fields.get("config", CONFIG),
            layers=layers,
        )
        async with locations.open("home", owner="alice") as opened:
            for body in blobs:
                name = opened.layout.layer(parse_reference("app"), digest_of(body))
                await opened.store.put(name, Content.of(body), resume=Resume())
            await opened.store.put("images/app/latest/manifest.json", Content.of(document.encoded()), resume=Resume())

    return publish


@pytest.fixture
def opened(locations, artifacts):
    """Opens a source for a platform."""

    def opened(platform):
        return StorageSource(
            parse_reference("storage:home/app"),
            owner="alice",
            locations=locations,
            artifacts=artifacts,
            target=TargetPlatform.of(platform, architecture="amd64"),
            max_layer_bytes=64 << 20,
            reporter=NoReporter(),
        )

    return opened


@pytest.fixture
def source(opened):
    return opened("")


async def pull(source, maker):
    try:
        resolved = await source.resolve()
        return resolved, await source.convert(maker)
    finally:
        await source.close()


def described(body: bytes, diff_id: str, **more) -> DocumentLayer:
    return DocumentLayer(diff_id=diff_id, digest=digest_of(body), size=len(body), **more)


async def test_a_blob_never_comes_under_the_diff_id_that_a_location_claims(
    published, source, maker, artifacts, make_erofs, make_tar
):
    evil, _ = await make_erofs(b"evil")
    archive = make_tar({"file": b"somebody's"})
    victim = digest_of(archive)
    await published(described(evil, victim), blobs=(evil,))

    resolved, (layer,) = await pull(source, maker)

    assert layer.diff_id == resolved.layers[0].diff_id == layer_name(digest_of(evil)) != victim
    assert artifacts.layer(layer.diff_id).read_bytes() == evil
    assert not artifacts.layer(victim).exists()

    async def fill(into):
        into.write(archive)

    made = await maker.make(victim, fill)
    assert not made.reused
    assert artifacts.layer(victim).read_bytes() != evil


async def test_a_layer_that_this_store_has_made_is_used_where_the_document_knows_its_content(
    published, source, maker, artifacts, make_erofs
):
    body, diff_id = await make_erofs(b"mine")
    artifacts.layer(diff_id).write_bytes(body)
    await published(described(body, diff_id))  # its blob is not even there

    _, (layer,) = await pull(source, maker)

    assert (layer.diff_id, layer.reused) == (diff_id, True)


async def test_a_diff_id_that_was_overheard_gets_nobody_the_layer(published, source, maker, artifacts, make_erofs):
    secret, diff_id = await make_erofs(b"somebody's secret")
    other, _ = await make_erofs(b"known to whoever asks")
    artifacts.layer(diff_id).write_bytes(secret)
    await published(described(other, diff_id), blobs=(other,))

    _, (layer,) = await pull(source, maker)

    assert layer.diff_id != diff_id
    assert artifacts.layer(layer.diff_id).read_bytes() == other
    assert artifacts.layer(diff_id).read_bytes() == secret


async def test_the_same_blob_is_fetched_once(published, source, maker, artifacts, make_erofs):
    body, diff_id = await make_erofs(b"twice")
    await published(described(body, diff_id), described(body, "sha256:" + "1" * 64), blobs=(body,))

    _, layers = await pull(source, maker)

    assert len({layer.diff_id for layer in layers}) == 1
    assert len(list(artifacts.root.glob("layers/*"))) == 1


async def test_names_in_a_document_lead_nowhere(published, source, maker, artifacts, make_erofs):
    body, diff_id = await make_erofs(b"app")
    await published(described(body, diff_id, name="../../../../etc/passwd"), blobs=(body,))

    _, (layer,) = await pull(source, maker)

    assert artifacts.layer(layer.diff_id).read_bytes() == body


async def test_what_is_pulled_is_configured_as_what_was_published(published, source, maker, make_erofs):
    body, diff_id = await make_erofs(b"app")
    await published(described(body, diff_id), blobs=(body,))

    resolved, _ = await pull(source, maker)

    assert resolved.config == CONFIG


async def test_a_damaged_blob_is_refused_and_nothing_is_left(published, source, maker, artifacts, make_erofs, tmp_path):
    body, diff_id = await make_erofs(b"app")
    await published(described(body, diff_id), blobs=(body,))
    blob = tmp_path / "published" / "alice" / "disks" / "layers" / f"{digest_of(body)[7:]}.erofs"
    for damage in (body[:-1] + b"!", body[: 1 << 19], body + b"more"):
        blob.write_bytes(damage)
        with pytest.raises(ContentMismatch):
            await pull(source, maker)
    blob.unlink()
    with pytest.raises(NotAtStorage):
        await pull(source, maker)
    assert not list(artifacts.root.glob("layers/*"))
    assert not list(artifacts.root.glob("staging/*"))


@pytest.mark.parametrize(
    "change",
    [lambda body: bytes(len(body)), lambda body: body[:1024] + b"XXXX" + body[1028:], lambda body: body[: 1 << 20]],
)
async def test_a_blob_that_is_no_file_system_is_refused(published, source, maker, artifacts, make_erofs, change):
    body, diff_id = await make_erofs(bytes(3 << 20))
    wrong = change(body)
    await published(described(wrong, diff_id), blobs=(wrong,))

    with pytest.raises(ContentMismatch, match="no EROFS file system"):
        await pull(source, maker)

    assert not list(artifacts.root.glob("layers/*"))


async def test_a_layer_above_the_bound_is_refused_before_it_is_fetched(published, source, maker):
    await published(DocumentLayer(diff_id="sha256:" + "1" * 64, digest="sha256:" + "2" * 64, size=1 << 40))

    with pytest.raises(LayerTooLarge):
        await pull(source, maker)


@pytest.mark.parametrize(
    ("wanted", "architecture", "refusal"),
    [
        ("", "s390x", r"not made for linux/amd64, only for linux/s390x\."),
        ("linux/amd64/v3", "amd64", r"not made for linux/amd64/v3, only for linux/amd64\."),
        ("linux/s390x", "amd64", r"run linux/amd64, not linux/s390x\. The image is made for linux/amd64\."),
        ("linux/amd64", "amd64", ""),
    ],
)
async def test_an_image_for_another_platform_is_refused(
    published, opened, maker, make_erofs, wanted, architecture, refusal
):
    body, diff_id = await make_erofs(b"app")
    await published(described(body, diff_id), blobs=(body,), config=replace(CONFIG, architecture=architecture))

    with pytest.raises(UnsupportedImage, match=refusal) if refusal else nullcontext():
        assert await pull(opened(wanted), maker)


GOOD = {
    "schema": 1,
    "reference": "app:latest",
    "digest": "sha256:" + "0" * 64,
    "published_at": "2026-11-24T17:00:00Z",
    "config": json.loads(json.dumps(asdict(CONFIG))),
    "layers": [{"diff_id": "sha256:" + "1" * 64, "digest": "sha256:" + "2" * 64, "size": 1 << 20}],
}


def test_a_document_is_read():
    assert parse_document(json.dumps(GOOD).encode(), name="x").config == CONFIG


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        json.dumps(GOOD | {"schema": 2}).encode(),
        json.dumps(GOOD | {"layers": []}).encode(),
        json.dumps(GOOD | {"layers": GOOD["layers"] * 300}).encode(),
        json.dumps(GOOD | {"layers": [GOOD["layers"][0] | {"size": 1000}]}).encode(),
        json.dumps(GOOD | {"layers": [GOOD["layers"][0] | {"size": -(1 << 20)}]}).encode(),
        json.dumps(GOOD | {"layers": [GOOD["layers"][0] | {"digest": "sha256:../../x"}]}).encode(),
        json.dumps(GOOD | {"layers": [GOOD["layers"][0] | {"diff_id": "sha256:" + "1" * 64 + "\n"}]}).encode(),
        json.dumps(GOOD | {"config": {"cmd": [{"not": "a word"}]}}).encode(),
        json.dumps(GOOD | {"published_at": "yesterday"}).encode(),
    ],
)
def test_what_is_no_document_is_refused(body):
    with pytest.raises(StorageRefused, match="does not describe an image"):
        parse_document(body, name="images/app/latest/manifest.json")


async def test_a_store_of_a_directory_follows_no_links(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("not for you")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "way-out").symlink_to(tmp_path / "outside")
    (tmp_path / "inside" / "file").symlink_to(tmp_path / "outside" / "file")
    store = DirectoryStore(Beneath(tmp_path, "inside"))

    for name in ("way-out/file", "file"):
        with pytest.raises(StorageRefused, match="Symbolic links"):
            await anext(store.get(name))
    for name in ("way-out/new", "way-out/deep/new"):
        with pytest.raises(StorageRefused):
            await store.put(name, Content.of(b"x"), resume=Resume())
    assert await store.listing("") == []
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]


async def test_putting_over_a_link_replaces_the_link_only(tmp_path):
    (tmp_path / "target").write_text("stays")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "name").symlink_to(tmp_path / "target")
    store = DirectoryStore(Beneath(tmp_path, "inside"))

    with pytest.raises(StorageRefused):
        await store.put("name", Content.of(b"new"), resume=Resume())

    assert (tmp_path / "target").read_text() == "stays"
