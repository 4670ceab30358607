"""A server that takes PUT and cannot list: what is at such a location, only its index tells."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from tests.unit.builder.put_server import PutServer
from uhm_builder.errors import StorageDenied, StorageRefused, StorageUnreachable
from uhm_builder.hosts import HostRules
from uhm_builder.images import ImageConfig
from uhm_builder.storage.content import Content
from uhm_builder.storage.document import Document, DocumentDisk, DocumentLayer
from uhm_builder.storage.http import answered
from uhm_builder.storage.index import read_index, renew_index
from uhm_builder.storage.layouts import ObjectLayout
from uhm_builder.storage.objects import Resume, read_document
from uhm_builder.storage.places import WebDavPlace
from uhm_builder.storage.webdav import WebDavStore

DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def server():
    with PutServer() as server:
        yield server


@pytest.fixture
async def store(server):
    store = WebDavStore(WebDavPlace(url=server.url, username=""), rules=HostRules())
    yield store
    await store.close()


@pytest.fixture
def publish(store):
    async def publish(name):
        disk = DocumentDisk(format="qcow2", digest=DIGEST, size=1, name=f"images/{name}/latest/{name}.qcow2")
        document = Document(
            reference=f"{name}:latest",
            digest=DIGEST,
            published_at=datetime(2026, 1, 1, tzinfo=UTC),
            config=ImageConfig(cmd=("x",), architecture="amd64"),
            layers=(DocumentLayer(diff_id=DIGEST, digest=DIGEST, size=1 << 20, name="layers/1.erofs"),),
            disk=disk,
        ).encoded()
        path = f"images/{name}/latest/manifest.json"
        await store.put(path, Content.of(document), resume=Resume())
        await renew_index(store, ObjectLayout(), name=path, document=document)

    return publish


async def listed(store) -> list[str]:
    return [entry.image.reference for entry in await read_index(store, ObjectLayout())]


async def test_an_index_that_cannot_be_read_for_a_moment_is_not_replaced(server, store, publish):
    await publish("a")
    await publish("b")
    assert await listed(store) == ["a:latest", "b:latest"]
    server.fail["GET", "/index.json"] = [503]

    with pytest.raises(StorageUnreachable, match="503"):
        await publish("c")
    assert await listed(store) == ["a:latest", "b:latest"]

    await publish("c")
    assert await listed(store) == ["a:latest", "b:latest", "c:latest"]


async def test_an_index_that_is_none_is_not_replaced(server, store, publish):
    server.content["/index.json"] = b"mine"

    with pytest.raises(StorageRefused, match=r"cannot be read.*delete it first"):
        await publish("a")

    assert server.content["/index.json"] == b"mine"


@pytest.mark.parametrize(("status", "error"), [(401, StorageDenied), (403, StorageDenied), (503, StorageUnreachable)])
async def test_a_server_that_does_not_say_what_it_is_gets_nothing(server, store, status, error):
    server.fail["OPTIONS", "/"] = [status]

    with pytest.raises(error, match=str(status)):
        await store.put("name", Content.of(b"x"), resume=Resume())
    assert "PUT" not in {method for method, _ in server.requests}

    await store.put("name", Content.of(b"x"), resume=Resume())  # OPTIONS is answered with 501 now
    assert await read_document(store, "name", at_most=1) == b"x"


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_the_method_does_no_webdav(server, store, status):
    server.fail["OPTIONS", "/"] = [status]

    await store.put("name", Content.of(b"x"), resume=Resume())

    assert server.content == {"/name": b"x"}


@pytest.mark.parametrize(
    "error", [httpx.TooManyRedirects("again"), httpx.DecodingError("no gzip"), httpx.ReadError("")]
)
def test_whatever_breaks_a_request_off_may_pass(error):
    with pytest.raises(StorageUnreachable, match="there does not answer"), answered("there"):
        raise error
