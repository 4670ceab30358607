"""Publishing to storage locations and pulling from them: the builder as processes, and real servers of each kind."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.integration.builder_system import INIT, MKFS, builder_system
from tests.servers import NatsServer, free_ports
from tests.storage_servers import (
    BUCKET,
    PASSWORD,
    USER,
    WORD,
    DockerRegistry,
    RcloneS3,
    RcloneWebDav,
)
from uhmalguhm.builder.v1 import storage_pb2, storage_pb2_grpc

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
    pytest.mark.skipif(not INIT.exists(), reason="build/guest/init is not built: make -C guest"),
]

KINDS = ("directory", "s3", "webdav", "registry")


class Storage:
    """A client of a system's storage locations."""

    def __init__(self, system, *, user: str = "alice") -> None:
        self.system = system
        self.user = user
        self.stub = storage_pb2_grpc.StorageServiceStub(system.channel)

    async def call(self, method: str, /, **fields):
        request = getattr(storage_pb2, f"{method}Request")(**fields)
        return await getattr(self.stub, method)(request, metadata=self.system.tokens.metadata(self.user))

    async def add(self, name: str, **place):
        return await self.call("CreateStorage", storage=storage_pb2.Storage(name=name, **place))

    async def publish(self, image: str, location: str, **more) -> storage_pb2.Publication:
        answer = await self.call("PublishImage", id=image, storage=location, **more)
        return answer.publication

    async def ended(self, publication_id: str, *, within: float = 90) -> storage_pb2.Publication:
        """Watches to the end; the last state."""
        request = storage_pb2.WatchPublicationRequest(id=publication_id)
        last = None
        async with asyncio.timeout(within):
            async for event in self.stub.WatchPublication(request, metadata=self.system.tokens.metadata(self.user)):
                last = event.publication
        assert last is not None
        assert last.status != "publishing"
        return last

    async def published(self, location: str) -> list[storage_pb2.PublishedImage]:
        return list((await self.call("ListPublishedImages", name=location)).images)


@asynccontextmanager
async def fresh_system(directory, nats_url, mirror, bases, **extra):
    """A builder of its own, with the base there already."""
    extra = {"UHM_REGISTRY_MIRRORS": f"docker.io={mirror}", **extra}
    async with builder_system(directory, nats_url, bases=bases, **extra) as system:
        yield system


@pytest.fixture
async def system(tmp_path, nats_url, mirror, bases):
    """The API and a worker."""
    async with fresh_system(tmp_path, nats_url, mirror, bases) as system:
        await system.start_worker()
        yield system


@pytest.fixture
def place(request, tmp_path):
    """Makes a location of some kind, with a server where it takes one; answers it and the server."""
    servers = []

    def make(kind: str):
        if kind == "directory":
            return {"directory": storage_pb2.DirectoryLocation(path="disks")}, None
        server = {"s3": RcloneS3, "webdav": RcloneWebDav, "registry": DockerRegistry}[kind]()
        servers.append(server)
        server.start()
        match kind:
            case "s3":
                s3 = storage_pb2.S3Location(
                    endpoint=f"http://{server.host}", bucket=BUCKET, access_key_id=USER, secret_access_key=PASSWORD
                )
                return {"s3": s3}, server
            case "webdav":
                url = f"http://{server.host}/disks"
                return {"webdav": storage_pb2.WebDavLocation(url=url, username=USER, password=WORD)}, server
        return {"registry": storage_pb2.RegistryLocation(repository=f"{server.host}/team/disks")}, server

    yield make
    for server in servers:
        server.remove()


async def until_half(storage: Storage, publication_id: str) -> None:
    """Waits until a publication is well on its way."""
    request = storage_pb2.WatchPublicationRequest(id=publication_id)
    async with asyncio.timeout(60):
        async for event in storage.stub.WatchPublication(
            request, metadata=storage.system.tokens.metadata(storage.user)
        ):
            state = event.publication
            assert state.status == "publishing", state.reason
            if state.total_bytes and state.done_bytes > state.total_bytes // 5:
                return


async def test_an_image_goes_to_locations_of_each_kind_and_comes_back(system, place, tmp_path):
    """And into another system, where mkfs.erofs is a program that fails and the image's registry does not exist."""
    storage = Storage(system)
    locations = {kind: place(kind)[0] for kind in KINDS}
    for kind, location in locations.items():
        await storage.add(kind, **location)

    image = await system.ended(await system.create("nginx", publish=KINDS))

    assert (image.status, image.reason) == ("ready", "")
    for publication in (await storage.call("ListPublications")).publications:
        done = await storage.ended(publication.id)
        assert (done.status, done.reason) == ("published", "")
        assert done.done_bytes == done.total_bytes > 0
    for kind in KINDS:
        (published,) = await storage.published(kind)
        assert published.reference == "nginx:latest"
        assert [each.kind for each in published.objects] == ["layer"] * len(image.layers) + ["disk", "manifest"]
        pulled = await system.ended(await system.create(f"storage:{kind}/nginx"))
        assert (pulled.status, pulled.reason) == ("ready", "")
        assert all(layer.reused for layer in pulled.layers)
        assert pulled.config == image.config
    await comes_into_another_system(image, locations, tmp_path / "other", system.artifacts / "bases")


async def comes_into_another_system(image, locations, directory, bases) -> None:
    nats = NatsServer(free_ports(1)[0])
    nats.start()
    try:
        settings = {"UHM_MKFS_EROFS": "/bin/false"}
        async with fresh_system(directory, nats.url, "http://127.0.0.1:1", bases, **settings) as other:
            await other.start_worker()
            storage = Storage(other, user="bob")
            for kind in ("registry", "s3"):
                await storage.add(kind, **locations[kind])
                pulled = await other.ended(await other.create(f"storage:{kind}/nginx", user="bob"), user="bob")
                assert (pulled.status, pulled.reason) == ("ready", "")
                assert [layer.size_bytes for layer in pulled.layers] == [layer.size_bytes for layer in image.layers]
                assert {layer.diff_id for layer in pulled.layers}.isdisjoint(layer.diff_id for layer in image.layers)
                assert {layer.reused for layer in pulled.layers} == {kind == "s3"}
    finally:
        nats.remove()


async def test_a_server_that_is_killed_while_an_image_goes_there(system, place):
    storage = Storage(system)
    image = await system.ended(await system.create("nginx"))
    for kind in ("s3", "registry"):
        location, server = place(kind)
        await storage.add(kind, **location)
        publication = await storage.publish(image.id, kind)
        await until_half(storage, publication.id)

        server.kill()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await storage.published(kind)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        if kind == "s3":  # later others have the same disk, so that the image may go
            with pytest.raises(grpc.aio.AioRpcError, match="is being published"):
                await system.delete(image.id)
        await asyncio.sleep(2)
        server.start()
        assert await storage.published(kind) == []

        done = await storage.ended(publication.id)
        assert (done.status, done.reason) == ("published", "")
        (published,) = await storage.published(kind)
        assert published.reference == "nginx:latest"
        pulled = await system.ended(await system.create(f"storage:{kind}/nginx"))
        assert (pulled.status, pulled.reason) == ("ready", "")
    await system.delete(image.id)


async def test_a_publication_that_is_cancelled_and_a_worker_that_is_killed(tmp_path, nats_url, mirror, bases, place):
    async with fresh_system(tmp_path, nats_url, mirror, bases, UHM_ACK_WAIT_SECONDS="1") as system:
        first = await system.start_worker()
        storage = Storage(system)
        location, _ = place("s3")
        await storage.add("home", **location)
        image = await system.ended(await system.create("nginx"))
        publication = await storage.publish(image.id, "home")
        await until_half(storage, publication.id)
        cancelled = (await storage.call("CancelPublication", id=publication.id)).publication
        assert cancelled.status == "cancelled"
        assert (await storage.ended(publication.id)).status == "cancelled"
        assert await storage.published("home") == []

        publication = await storage.publish(image.id, "home")
        await until_half(storage, publication.id)
        first.send_signal(signal.SIGKILL)
        first.wait()
        await system.start_worker()

        done = await storage.ended(publication.id)
        assert (done.status, done.reason) == ("published", "")
        assert len(await storage.published("home")) == 1
        assert not list(system.artifacts.glob("disks/*/leases/*"))
        await system.delete(image.id)


async def test_what_is_told_of_locations(tmp_path, nats_url, mirror, place):
    """All that the API does without a worker."""
    async with builder_system(tmp_path, nats_url, UHM_REGISTRY_MIRRORS=f"docker.io={mirror}") as system:
        await _told(system, place)


async def _told(system, place):
    storage, other = Storage(system), Storage(system, user="bob")
    location, _ = place("s3")
    added = (await storage.add("home", **location)).storage

    assert added.s3.access_key_id == USER
    assert added.s3.secret_access_key == ""
    assert [each.name for each in (await storage.call("ListStorage")).storage] == ["home"]
    await storage.call("TestStorage", name="home")
    for call in ("GetStorage", "TestStorage", "DeleteStorage", "ListPublishedImages"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await other.call(call, name="home")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError, match="no storage location 'nowhere'"):
        await system.create("nginx", publish=["nowhere"])
    location["s3"].secret_access_key = "wrong"
    with pytest.raises(grpc.aio.AioRpcError, match=r"Nothing can be written there\. .*denied"):
        await storage.add("wrong", **location)
    await storage.call("DeleteStorage", name="home")
    secret = PASSWORD.encode()
    kept = [path for path in (system.directory / "state").rglob("*") if path.is_file() and "bases" not in path.parts]
    assert not [path for path in [*kept, *system.directory.glob("*.log")] if secret in path.read_bytes()]
