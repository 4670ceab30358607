"""The builder as processes, with the real NATS server, registry, mkfs.erofs, libguestfs and Docker Engine."""
# ruff: noqa: ASYNC110, ASYNC221 - what is tested runs in other processes

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time

import grpc
import pytest
from google.api import httpbody_pb2

from tests.integration.builder_system import INIT, MKFS, builder_system
from uhm_builder.models import VERSION_TABLE, Base
from uhm_builder.parts import MIGRATIONS
from uhm_builder.sources.engine import Engine
from uhm_builder.sources.saved_stream import SavedImage
from uhm_common.database import Database
from uhm_common.events import IMAGES_DELETED, IMAGES_READY, IMAGES_STREAM, EventBus
from uhm_common.settings import CommonSettings, database_url
from uhm_common.subscription import Subscription
from uhmalguhm.builder.v1 import image_pb2

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
    pytest.mark.skipif(not INIT.exists(), reason="build/guest/init is not built: make -C guest"),
]

NGINX_LAYERS = 2


@pytest.fixture
async def system(tmp_path, nats_url, mirror, bases):
    """The API alone."""
    extra = {"UHM_REGISTRY_MIRRORS": f"docker.io={mirror}"}
    async with builder_system(tmp_path, nats_url, bases=bases, **extra) as system:
        yield system


async def upload(system, data: bytes, *, user="alice") -> str:
    async def requests():
        for at in range(0, len(data), 1000):
            yield image_pb2.UploadContextRequest(body=httpbody_pb2.HttpBody(data=data[at : at + 1000]))

    answer = await system.images.UploadContext(requests(), metadata=system.tokens.metadata(user))
    assert answer.size_bytes == len(data)
    return answer.id


async def stage_begun(system, image_id: str, stages: int, *, attempt: int = 1) -> None:
    """Waits until that attempt at a build has so many stages behind it, and works on the next one."""
    async for event in system.watch(image_id):
        if event.image.attempt >= attempt and len(event.image.stages) >= stages:
            return


@pytest.fixture
def slow(tmp_path) -> dict[str, str]:
    """Settings of a worker whose conversions take long enough for something to happen in the middle."""
    script = tmp_path / "slow-mkfs"
    script.write_text(f'#!/bin/sh\nsleep 3\nexec {MKFS} "$@"\n')
    script.chmod(0o755)
    return {"UHM_MKFS_EROFS": str(script)}


async def test_an_image_from_the_registry(system, mirror):
    await system.start_worker()

    image_id = await system.create("nginx")
    events = [event async for event in system.watch(image_id)]

    last = events[-1].image
    assert last.status == "ready", last.reason
    assert [stage.name for stage in last.stages if stage.name != "base"] == ["resolve", "convert", "compose"]
    assert all(stage.duration_ms > 0 for stage in last.stages)
    assert any(event.WhichOneof("event") == "progress" for event in events)
    assert len(last.layers) == NGINX_LAYERS
    assert last.size_bytes == sum(layer.size_bytes for layer in last.layers) == last.stages[1].bytes
    assert list(last.config.exposed_ports) == ["80/tcp"]
    assert last.attempt == 1
    disk = system.artifacts / "disks" / last.disk_digest.removeprefix("sha256:")
    shown = subprocess.run(
        ["qemu-img", "info", "-f", "vmdk", "--output=json", str(disk / "disk.vmdk")], check=True, capture_output=True
    )
    assert json.loads(shown.stdout)["virtual-size"] > last.size_bytes
    for layer in last.layers:
        blob = system.artifacts / "layers" / f"{layer.diff_id.removeprefix('sha256:')}.erofs"
        assert blob.stat().st_size == layer.size_bytes
    assert system.staged() == []

    again = await system.ended(await system.create("nginx:latest"))
    assert again.status == "ready"
    assert all(layer.reused for layer in again.layers)
    assert sum(stage.duration_ms for stage in again.stages) < 1000
    assert [image.id for image in await system.listed()] == [again.id]
    assert (await system.get(image_id)).id == again.id
    assert (await system.get("nginx", user="alice")).id == again.id
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await system.get(image_id, user="bob")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND

    assert await system.delete("nginx") > last.size_bytes // 2
    assert len(list((system.artifacts / "layers").iterdir())) == NGINX_LAYERS
    assert (await system.collect()).freed_bytes > last.size_bytes // 2
    assert list((system.artifacts / "layers").iterdir()) == []
    assert list((system.artifacts / "disks").iterdir()) == []


async def test_others_hear_of_an_image_from_ready_to_deleted(system, nats_url):
    heard = asyncio.Queue()

    async def handle(subject, payload):
        heard.put_nowait((subject, payload))

    bus = EventBus(nats_url, name="test")
    subscription = Subscription(
        events=bus, stream=IMAGES_STREAM, subjects=[IMAGES_READY, IMAGES_DELETED], durable="test"
    )
    await system.start_worker()
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(90):
        listening = [tasks.create_task(bus.run()), tasks.create_task(subscription.run(handle))]

        image = await system.ended(await system.create("nginx"))
        subject, payload = await heard.get()
        assert subject == IMAGES_READY
        assert payload.pop("config")["exposed_ports"] == ["80/tcp"] == list(image.config.exposed_ports)
        of_image = {"owner": "alice", "reference": "nginx:latest", "disk_digest": image.disk_digest}
        assert payload == {"id": image.id, **of_image}

        again = await system.ended(await system.create("nginx"))
        assert await heard.get() == (IMAGES_DELETED, {"id": image.id, **of_image})
        subject, payload = await heard.get()
        assert (subject, payload["id"]) == (IMAGES_READY, again.id)

        await system.delete("nginx")
        assert await heard.get() == (IMAGES_DELETED, {"id": again.id, **of_image})
        for task in listening:
            task.cancel()
    assert heard.empty()


async def test_wrong_references_and_missing_images(system):
    await system.start_worker()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await system.create("Nginx")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'nginx'" in error.value.details()

    image = await system.ended(await system.create("nginx:no-such-tag"))

    assert image.status == "failed"
    assert "library/nginx:no-such-tag" in image.reason


async def test_one_layer_is_made_once_by_two_workers(system):
    await system.start_worker()
    await system.start_worker()

    ids = [await system.create(name, user=user) for name, user in [("nginx", "alice"), ("nginx", "bob")]]
    images = [await system.ended(image_id, user=user) for image_id, user in zip(ids, ["alice", "bob"], strict=True)]

    assert [image.status for image in images] == ["ready", "ready"]
    assert images[0].disk_digest == images[1].disk_digest
    made = [layer for image in images for layer in image.layers if not layer.reused]
    assert sorted(layer.diff_id for layer in made) == sorted(layer.diff_id for layer in images[0].layers)
    await system.delete(ids[0])
    assert (await system.get(ids[1], user="bob")).status == "ready"
    assert len(list((system.artifacts / "layers").iterdir())) == NGINX_LAYERS


async def test_a_build_is_cancelled_in_the_middle(system, slow):
    await system.start_worker(**slow)
    image_id = await system.create("nginx")
    await stage_begun(system, image_id, 1)

    cancelled = await system.cancel(image_id)

    assert cancelled.status == "cancelled"
    assert (await system.ended(image_id)).status == "cancelled"
    async with asyncio.timeout(5):
        while system.staged():
            await asyncio.sleep(0.05)
    assert (await system.ended(await system.create("nginx"))).status == "ready"


async def test_a_killed_worker_is_replaced(system, slow):
    first = await system.start_worker(**slow)
    image_id = await system.create("nginx")
    await stage_begun(system, image_id, 1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (await system.listed())[0].status == "building"

    await system.start_worker()
    image = await system.ended(image_id, within=60)

    assert image.status == "ready", image.reason
    assert image.attempt == 2
    assert system.staged() == []
    assert system.logs().count('"event": "build.ready"') == 1


async def test_a_worker_that_is_told_to_stop_hands_its_build_back(system, slow):
    first = await system.start_worker(**slow)
    image_id = await system.create("nginx")
    await stage_begun(system, image_id, 1)

    first.send_signal(signal.SIGTERM)
    await asyncio.to_thread(first.wait, 40)
    assert first.returncode == 0
    await system.start_worker()
    started = time.monotonic()
    image = await system.ended(image_id)

    assert image.status == "ready", image.reason
    assert time.monotonic() - started < 9  # it did not wait for the heartbeat to be missed
    assert system.staged() == []


async def test_wishes_wait_for_nats(system, nats_server):
    await system.start_worker()
    nats_server.stop()
    image_id = await system.create("nginx")
    watching = asyncio.create_task(system.ended(image_id))
    await asyncio.sleep(1)
    assert (await system.listed())[0].status == "building"

    nats_server.start()

    assert (await watching).status == "ready"


async def test_a_build_goes_on_while_nats_restarts(system, nats_server, slow):
    await system.start_worker(**slow)
    image_id = await system.create("nginx")
    await stage_begun(system, image_id, 1)
    nats_server.stop(signal.SIGKILL)
    await asyncio.sleep(1)
    nats_server.start()

    image = await system.ended(image_id)

    assert image.status == "ready", image.reason


async def test_a_message_that_nats_has_lost_is_made_up_for(system, nats_server):
    image_id = await system.create("nginx")
    await asyncio.sleep(1)
    nats_server.stop(signal.SIGKILL)
    shutil.rmtree(nats_server.directory / "jetstream")
    nats_server.start()

    await system.start_worker(UHM_LOST_AFTER_SECONDS="2")

    assert (await system.ended(image_id, within=60)).status == "ready"


async def test_a_build_that_kills_its_workers_is_given_up(system, slow):
    image_id = await system.create("nginx")
    for attempt in (1, 2):
        worker = await system.start_worker(UHM_MAX_ATTEMPTS="2", UHM_ACK_WAIT_SECONDS="1", **slow)
        await stage_begun(system, image_id, 1, attempt=attempt)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    await system.start_worker(UHM_MAX_ATTEMPTS="2", UHM_ACK_WAIT_SECONDS="1")

    image = await system.ended(image_id)

    assert image.status == "failed"
    assert "taken up 2 times" in image.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_full_disk_fails_the_build_and_leaves_nothing(system):
    staging = system.artifacts / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(staging)], check=True)
    try:
        await system.start_worker()
        image = await system.ended(await system.create("nginx"))
        assert image.status == "failed"
        assert "no space left on the file system" in image.reason
        assert system.staged() == []
    finally:
        subprocess.run(["umount", "--lazy", str(staging)], check=True)

    assert (await system.ended(await system.create("nginx"))).status == "ready"


async def test_an_upload_past_the_bound_is_refused(tmp_path, nats_url):
    async with builder_system(tmp_path, nats_url, UHM_MAX_CONTEXT_BYTES="5000") as system:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await upload(system, os.urandom(10_000))

        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert list((tmp_path / "state" / "contexts").iterdir()) == []


async def test_the_schema_works_on_postgresql(tmp_path, nats_url, mirror, postgres_url, bases):
    extra = {"UHM_DATABASE_URL": postgres_url, "UHM_REGISTRY_MIRRORS": f"docker.io={mirror}"}
    async with builder_system(tmp_path, nats_url, bases=bases, **extra) as system:
        await system.start_worker()
        first = await system.ended(await system.create("nginx"))
        second = await system.ended(await system.create("nginx"))

        assert (first.status, second.status) == ("ready", "ready")
        assert (await system.get(first.id[:6])).id in (first.id, second.id)
        assert len(await system.listed(reference="nginx")) == 1
        await system.delete("nginx")
        assert await system.listed() == []


@pytest.mark.parametrize("url", ["sqlite", "postgresql"])
async def test_the_migrations_make_what_the_models_say(tmp_path, request, url):
    settings = CommonSettings(
        state_dir=tmp_path, database_url="" if url == "sqlite" else request.getfixturevalue("postgres_url")
    )
    database = Database(database_url(settings, service="builder"))
    try:
        for _ in range(2):
            await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
        async with database.read() as session:
            connection = await session.connection()
            assert await connection.run_sync(_differences) == []
    finally:
        await database.close()


def _differences(connection) -> list:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - it is slow to import
    from alembic.migration import MigrationContext  # noqa: PLC0415

    options = {
        "version_table": VERSION_TABLE,
        "include_name": lambda name, kind, _: kind != "table" or name != VERSION_TABLE,
    }
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


@pytest.fixture
async def engine_system(system, engine):
    await system.start_worker(UHM_DOCKER_HOST=engine.host, UHM_BUILD_NETWORK="host")
    return system


def docker(engine, *arguments: str) -> str:
    argv = ["docker", "--host", engine.host, *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def test_an_image_that_the_engine_holds(engine_system, engine):
    docker(engine, "pull", "--quiet", "nginx")

    image = await engine_system.ended(await engine_system.create("docker-daemon:nginx"))
    pulled = await engine_system.ended(await engine_system.create("nginx"))
    missing = await engine_system.ended(await engine_system.create("docker-daemon:nothing"))

    assert image.status == "ready", image.reason
    assert image.reference == "docker-daemon:nginx:latest"
    assert image.digest == docker(engine, "inspect", "--format={{.Id}}", "nginx").strip()
    assert image.disk_digest == pulled.disk_digest
    assert not image.config.HasField("healthcheck")
    assert all(layer.reused for layer in pulled.layers)
    assert list(image.config.cmd) == list(pulled.config.cmd)
    assert missing.status == "failed"
    assert "no image nothing:latest" in missing.reason


async def test_layers_of_an_engines_archive_are_recognised_before_they_are_read(engine):
    docker(engine, "pull", "--quiet", "nginx")
    client = Engine(engine.host)
    diff_ids = client.inspect("nginx")["RootFS"]["Layers"]
    archive = SavedImage(client.save("nginx"), diff_ids=diff_ids)
    found = {}
    while entry := archive.next_layer():
        found[entry.diff_id] = hashlib.sha256(b"".join(entry.pieces())).hexdigest()
    client.close()

    assert found == {diff_id: diff_id.removeprefix("sha256:") for diff_id in diff_ids}


async def test_an_engine_that_is_not_there_is_named(system):
    await system.start_worker(UHM_DOCKER_HOST="unix:///nowhere/docker.sock")

    image = await system.ended(await system.create("docker-daemon:nginx"))

    assert image.status == "failed"
    assert "unix:///nowhere/docker.sock does not answer" in image.reason
