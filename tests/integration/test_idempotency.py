"""Idempotency keys with the builder as a process: many at once, and one that is killed in the middle."""

from __future__ import annotations

import asyncio
import signal
import uuid

import grpc
import pytest

from tests.integration.builder_system import answering, builder_system
from uhmalguhm.builder.v1 import image_pb2, registry_pb2, registry_pb2_grpc, storage_pb2, storage_pb2_grpc

pytestmark = pytest.mark.integration

AT_ONCE = 20
RETRIED = {grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE}


@pytest.fixture(params=["sqlite", "postgresql"])
async def system(request, tmp_path, nats_url):
    url = {} if request.param == "sqlite" else {"UHM_DATABASE_URL": request.getfixturevalue("postgres_url")}
    async with builder_system(tmp_path, nats_url, **url) as system:
        yield system


def create(system, key, *, user="alice"):
    metadata = [*system.tokens.metadata(user), ("idempotency-key", key)]
    return system.images.CreateImage(image_pb2.CreateImageRequest(image="nowhere.example/x:1"), metadata=metadata)


async def create_until_answered(system, key):
    """As a client does that loses its connection: the same again, with the same key."""
    async with asyncio.timeout(60):
        while True:
            try:
                return (await create(system, key)).id
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
                await asyncio.sleep(0.1)


async def test_many_creates_at_once_make_one(system):
    key = uuid.uuid4().hex
    answers = await asyncio.gather(*(create(system, key) for _ in range(AT_ONCE)))

    assert len({answer.id for answer in answers}) == 1
    assert [image.id for image in await system.listed()] == [answers[0].id]
    assert (await create(system, key, user="bob")).id != answers[0].id


async def test_a_service_that_is_killed_in_the_middle_makes_no_second_one(system):
    keys = [uuid.uuid4().hex for _ in range(AT_ONCE)]
    creating = [asyncio.ensure_future(create_until_answered(system, key)) for key in keys]
    await asyncio.wait(creating, return_when=asyncio.FIRST_COMPLETED)
    (api,) = system.processes
    api.send_signal(signal.SIGKILL)
    api.wait()
    system.processes.clear()
    system.start("uhm_builder", system.api_port)
    await answering(system.api_port)

    answered = await asyncio.gather(*creating)
    assert sorted(answered) == sorted(image.id for image in await system.listed())
    assert len(set(answered)) == AT_ONCE


async def test_all_that_is_made_takes_a_key(system, tmp_path):
    """Registries, locations and publications; a publication of an image that is not there is not remembered."""
    registries = registry_pb2_grpc.RegistryServiceStub(system.channel)
    storage = storage_pb2_grpc.StorageServiceStub(system.channel)
    metadata = [*system.tokens.metadata("alice"), ("idempotency-key", "k")]
    registry = registry_pb2.Registry(host="reg.example", username="me", password="secret")
    directory = storage_pb2.DirectoryLocation(path=str(tmp_path / "state" / "published" / "alice"))
    location = storage_pb2.Storage(name="here", directory=directory)

    for call, request in (
        (registries.CreateRegistry, registry_pb2.CreateRegistryRequest(registry=registry, skip_test=True)),
        (storage.CreateStorage, storage_pb2.CreateStorageRequest(storage=location)),
    ):
        assert await call(request, metadata=metadata) == await call(request, metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as without:
        await storage.CreateStorage(
            storage_pb2.CreateStorageRequest(storage=location), metadata=system.tokens.metadata("alice")
        )
    assert without.value.code() is grpc.StatusCode.ALREADY_EXISTS
    for image in ("nginx", "redis"):
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await storage.PublishImage(storage_pb2.PublishImageRequest(id=image, storage="here"), metadata=metadata)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
