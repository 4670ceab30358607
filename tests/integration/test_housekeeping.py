"""Archives as input, quotas, usage, and collecting garbage beside everything else; with real processes."""
# ruff: noqa: ASYNC110, ASYNC220 - what is tested runs in other processes

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.api import httpbody_pb2

from tests.archives import tar_of
from tests.integration.builder_system import INIT, MKFS, builder_system
from uhm_builder.collector import Collector
from uhm_builder.disk import load_disk
from uhm_builder.images import Status
from uhm_builder.store import ImageStore
from uhm_common.artifacts import ArtifactStore, Kind
from uhm_common.database import Database
from uhm_common.errors import NotFound
from uhm_common.settings import CommonSettings, database_url
from uhmalguhm.builder.v1 import image_pb2

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
    pytest.mark.skipif(not INIT.exists(), reason="build/guest/init is not built: make -C guest"),
]

BESIDE_SECONDS = 12.0
COLLECTORS = 2
COLLECT = """
import asyncio, sys
from pathlib import Path
from uhm_builder.collector import Collector
from uhm_builder.store import ImageStore
from uhm_common.artifacts import ArtifactStore
from uhm_common.database import Database

async def collect(url, root):
    database, artifacts = Database(url), ArtifactStore(Path(root))
    collector = Collector(artifacts=artifacts, database=database, store=ImageStore(database), grace_seconds=0)
    passes, freed = 0, 0
    while not (Path(root) / "enough").exists():
        freed += (await collector.collect()).layers
        passes += 1
        await asyncio.sleep(0.002)
    print(passes, freed)
    await database.close()

asyncio.run(collect(*sys.argv[1:]))
"""


@asynccontextmanager
async def running(directory, nats_url, bases, *, workers=1, **settings):
    """A builder with workers, and the base from the first test that made it."""
    async with builder_system(directory, nats_url, bases=bases, **settings) as system:
        for _ in range(workers):
            await system.start_worker()
        yield system


@pytest.fixture
async def opened():
    """Opens a system's database and store, as its own processes do."""
    databases = []

    def opened(system):
        settings = CommonSettings(
            state_dir=system.directory / "state", database_url=system.extra.get("UHM_DATABASE_URL", "")
        )
        databases.append(Database(database_url(settings, service="builder")))
        return databases[-1], ImageStore(databases[-1]), ArtifactStore(settings.artifacts_dir)

    yield opened
    for database in databases:
        await database.close()


def saved(layers: list[bytes], *, tag: str) -> bytes:
    """An image of these layers, as `docker save` writes it."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    rootfs = {"diff_ids": [f"sha256:{digest}" for digest in digests]}
    config = json.dumps({"os": "linux", "config": {"Cmd": [tag]}, "rootfs": rootfs}).encode()
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = [{"Config": "c.json", "RepoTags": [tag], "Layers": names}]
    files = {"c.json": config, "manifest.json": json.dumps(manifest).encode()}
    return tar_of(dict(zip(names, layers, strict=True)) | files)


def layer(number: int, *, size: int = 64 << 10) -> bytes:
    return tar_of({f"opt/{number}": random.Random(number).randbytes(size)})


async def upload(system, data: bytes, *, user="alice") -> image_pb2.Archive:
    async def requests():
        for at in range(0, len(data), 1 << 20):
            yield image_pb2.UploadContextRequest(body=httpbody_pb2.HttpBody(data=data[at : at + (1 << 20)]))

    answer = await system.images.UploadContext(requests(), metadata=system.tokens.metadata(user))
    return image_pb2.Archive(id=answer.id)


async def load(system, layers: list[bytes], *, tag: str, user="alice") -> image_pb2.Image:
    archive = await upload(system, saved(layers, tag=tag), user=user)
    return await system.ended(await system.create("", user=user, archive=archive), user=user)


async def test_an_archive_becomes_an_image(tmp_path, nats_url, bases):
    async with running(tmp_path, nats_url, bases) as system:
        first = await load(system, [layer(1), layer(2)], tag="shop:1")
        again = await load(system, [layer(1), layer(2)], tag="shop:1")
        other = await load(system, [layer(1), layer(3)], tag="shop:1")

        assert (first.status, first.reference) == ("ready", "shop:1"), first.reason
        assert [entry.reused for entry in again.layers] == [True, True]
        assert [entry.reused for entry in other.layers] == [True, False]
        assert again.disk_digest == first.disk_digest
        assert (await system.get("shop:1")).id == other.id
        assert (await system.get(first.id)).reference == f"shop@{again.digest}"

        failed = await load(system, [layer(1)], tag="")
        assert (failed.status, "no name" in failed.reason) == ("failed", True)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await system.create("", user="bob", archive=await upload(system, b"x"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert system.staged() == []


async def test_what_lost_its_tag_is_kept_until_it_is_collected(tmp_path, nats_url, bases):
    async with running(tmp_path, nats_url, bases) as system:
        first = await load(system, [layer(1), layer(2)], tag="shop:1")
        second = await load(system, [layer(1), layer(3)], tag="shop:1")
        used = await system.usage()
        assert used.images == 2
        assert used.layer_bytes == used.unshared_bytes == sum(entry.size_bytes for entry in first.layers) * 3 // 2
        assert used.reclaimable_bytes == 0
        assert used.store_bytes > used.layer_bytes
        assert used.free_bytes > 0

        would = await system.collect(untagged=True, dry_run=True)
        young = await system.collect(untagged=True, older_than={"seconds": 3600})
        done = await system.collect(untagged=True)

        assert (list(young.images), young.layers) == ([], 0)
        assert list(would.images) == list(done.images) == [first.id]
        assert (would.layers, would.disks, would.freed_bytes) == (done.layers, done.disks, done.freed_bytes)
        assert (done.layers, done.disks) == (1, 1)
        assert [image.id for image in await system.listed()] == [second.id]
        assert (await system.usage()).images == 1


async def test_a_deleted_image_is_soon_made_again(tmp_path, nats_url, bases, opened):
    """The grace period, from the row to the file; then its end."""
    async with running(tmp_path, nats_url, bases, UHM_LAYER_GRACE_SECONDS="4") as system:
        image = await load(system, [layer(1)], tag="shop:1")
        will_be_freed = await system.delete("shop:1")
        assert will_be_freed >= image.size_bytes // 2
        assert (await system.usage()).reclaimable_bytes == will_be_freed
        again = await load(system, [layer(1)], tag="shop:1")
        assert again.layers[0].reused

        await system.delete("shop:1")
        database, store, artifacts = opened(system)
        collector = Collector(artifacts=artifacts, database=database, store=store, grace_seconds=4)
        async with asyncio.timeout(20):
            while {artifact.kind for artifact in artifacts.stored()} != {Kind.BASE}:
                await collector.collect()
                await asyncio.sleep(0.2)


async def quota(system, kind: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await system.create("nginx")
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, kind
    return str(error.value.details())


@pytest.mark.parametrize("url", ["sqlite", "postgresql"])
async def test_a_quota_holds_against_many_at_once(tmp_path, nats_url, bases, request, url):
    extra = {"UHM_DATABASE_URL": request.getfixturevalue("postgres_url")} if url == "postgresql" else {}
    async with running(tmp_path, nats_url, bases, workers=0, UHM_MAX_BUILDS_PER_USER="3", **extra) as system:
        asked = [system.create("nginx", user=user) for _ in range(25) for user in ("alice", "bob")]
        answers = await asyncio.gather(*asked, return_exceptions=True)

        refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(answers) - len(refused) == 6
        assert "3 of your images are being built; 3 may be at once" in await quota(system, "builds")
        assert (await system.usage()).quota.builds == 3


async def test_a_quota_of_bytes(tmp_path, nats_url, bases):
    """Every layer is 1 MiB in the store."""
    async with running(
        tmp_path, nats_url, bases, UHM_MAX_BYTES_PER_USER=str(2 << 20), UHM_LAYER_GRACE_SECONDS="0"
    ) as system:
        assert (await load(system, [layer(1)], tag="a:1")).status == "ready"
        shared = await load(system, [layer(1), layer(2)], tag="b:1")
        assert shared.status == "ready", shared.reason
        assert "2097152 bytes" in await quota(system, "bytes")
        await system.delete("b:1")
        failed = await load(system, [layer(1), layer(2), layer(3)], tag="c:1")
        assert failed.status == "failed"
        assert "would have 3145728 bytes in layers, each counted once; 2097152 are allowed." in failed.reason
        await system.collect()
        assert len(list((system.artifacts / "layers").iterdir())) == 1


@dataclass
class Beside:
    """Builds, deletes and leases on one system, and a watch over what has to be there meanwhile."""

    system: object
    store: ImageStore
    artifacts: ArtifactStore
    archives: list[image_pb2.Archive]
    until: float
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    async def build(self, number: int) -> None:
        chance = random.Random(number)
        while self.goes_on:
            name = f"i{chance.randrange(8)}:1"
            image_id = await self.system.create(name, archive=chance.choice(self.archives))
            while (image := await self.store.get(image_id)) is not None and image.status is Status.BUILDING:
                await asyncio.sleep(0.02)
            if image is None:
                self.counts["deleted right away"] += 1
                continue
            self.counts[f"builds {image.status}"] += 1
            self.counts["layers reused"] += sum(entry.reused for entry in image.layers)
            self.counts["layers made"] += sum(not entry.reused for entry in image.layers)
            if image.status is not Status.READY:
                self.wrong.append(f"a build failed: {image.reason}")

    async def delete(self) -> None:
        while self.goes_on:
            ready = [image for image in await self.system.listed(page_size=1000) if image.status == "ready"]
            for image in ready:
                try:
                    await self.system.delete(image.id)
                    self.counts["deleted"] += 1
                except grpc.aio.AioRpcError as error:
                    self.counts[f"delete: {error.code().name}"] += 1
                    if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                        self.wrong.append(f"a deletion failed: {error.details()}")

    async def start(self, number: int) -> None:
        """What the machines service does with the store at a start, and what QEMU then reads."""
        holder = f"machine-{number}"
        while self.goes_on:
            ready = await self.store.page(owner="alice", before=None, limit=1000)
            images = [image for image in ready if image.status is Status.READY]
            if not images:
                await asyncio.sleep(0.01)
                continue
            image = random.choice(images)
            try:
                await asyncio.to_thread(self.artifacts.take_lease, image.disk_digest, holder=holder)
            except NotFound:
                self.counts["starts too late"] += 1
                if await self._is_ready(image):
                    self.wrong.append(f"no disk for the image {image.id}")
                continue
            for _ in range(random.randrange(1, 20)):
                if missing := self._missing(image):
                    self.wrong.append(f"gone under a machine: {missing}")
                await asyncio.sleep(0.01)
            self.counts["starts"] += 1
            self.artifacts.drop_lease(image.disk_digest, holder=holder)

    async def watch(self) -> None:
        while self.goes_on:
            for image in await self.store.page(owner="alice", before=None, limit=1000):
                if image.status is Status.READY and (missing := self._missing(image)) and await self._is_ready(image):
                    self.wrong.append(f"{image.reference} is ready without {missing}")
                self.counts["looks"] += 1
            await asyncio.sleep(0.01)

    async def collect(self) -> None:
        while self.goes_on:
            answer = await self.system.collect()
            self.counts["collected over the API"] += answer.layers

    async def _is_ready(self, image) -> bool:
        found = await self.store.get(image.id)
        return found is not None and found.id == image.id and found.status is Status.READY

    def _missing(self, image) -> list[str]:
        paths = [self.artifacts.layer(entry.diff_id) for entry in image.layers]
        paths.append(self.artifacts.disk(image.disk_digest) / "disk.vmdk")
        try:
            paths.append(self.artifacts.base(load_disk(self.artifacts, image.disk_digest).base) / "boot.raw")
        except NotFound as error:
            return [str(error)]
        return [str(path) for path in paths if not path.exists()]


async def test_nothing_in_use_is_collected(tmp_path, nats_url, bases, opened):
    """Two workers build, images are deleted and started, while collectors in several processes go round and round."""
    async with running(tmp_path, nats_url, bases, workers=2, UHM_LAYER_GRACE_SECONDS="0") as system:
        layers = [layer(number) for number in range(12)]
        choose = random.Random(7)
        archives = [
            await upload(system, saved(choose.sample(layers, choose.randrange(1, 4)), tag=f"t:{number}"))
            for number in range(12)
        ]
        await system.ended(await system.create("first:1", archive=archives[0]))
        _, store, artifacts = opened(system)
        beside = Beside(system, store, artifacts, archives, until=time.monotonic() + BESIDE_SECONDS)
        argv = [
            sys.executable,
            "-c",
            COLLECT,
            f"sqlite+aiosqlite:///{system.directory}/state/builder.db",
            str(artifacts.root),
        ]
        collectors = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(COLLECTORS)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (
                    beside.delete(),
                    beside.watch(),
                    beside.collect(),
                    *map(beside.build, range(4)),
                    *map(beside.start, range(3)),
                ):
                    tasks.create_task(work)
        finally:
            (artifacts.root / "enough").touch()
            said = [await asyncio.to_thread(child.communicate, timeout=30) for child in collectors]
        for (out, _), child in zip(said, collectors, strict=True):
            assert child.returncode == 0
            beside.counts["passes"] += int(out.split()[0])
            beside.counts["collected by others"] += int(out.split()[1])

        assert beside.wrong == [], dict(beside.counts)
        for what in ("builds ready", "deleted", "starts", "layers made", "layers reused", "passes"):
            assert beside.counts[what] >= 10, dict(beside.counts)
        if os.environ.get("UHM_TEST_TELL"):
            sys.stderr.write(f"\n{dict(beside.counts)}\n")

        for image in await system.listed(page_size=1000):
            await system.delete(image.id)
        await system.collect()
        assert {artifact.kind for artifact in artifacts.stored()} == {Kind.BASE}
        assert system.staged() == []
