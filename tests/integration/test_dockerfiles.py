"""Dockerfile builds, with the real Docker Engine, its command line, NATS, mkfs.erofs and libguestfs."""
# ruff: noqa: ASYNC110, ASYNC221, ASYNC240 - what is tested runs in other processes

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import grpc
import pytest
from google.api import httpbody_pb2

from tests.archives import tar_of
from tests.integration.builder_system import INIT, MKFS, builder_system
from uhm_builder.sources.buildkit import find_program
from uhm_builder.sources.engine import Engine
from uhm_builder.sources.layerdb import LayerDatabase
from uhmalguhm.builder.v1 import image_pb2

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
    pytest.mark.skipif(not INIT.exists(), reason="build/guest/init is not built: make -C guest"),
]
needs_buildkit = pytest.mark.skipif(not find_program(), reason="no docker command line here reaches BuildKit")

SECRET = b"correct-horse-battery-staple-d41d8cd98f"


@pytest.fixture
async def system(tmp_path, nats_url, engine, bases):
    """The API and a worker."""
    extra = {"UHM_DOCKER_HOST": engine.host, "UHM_BUILD_NETWORK": "host"}
    async with builder_system(tmp_path, nats_url, bases=bases, **extra) as system:
        await system.start_worker()
        yield system


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def upload(system, data: bytes, *, user="alice", digest="", offset=0, break_off=False, piece=64 << 10):
    async def requests():
        for at in range(offset, len(data), piece) or [0]:
            body = httpbody_pb2.HttpBody(data=data[at : at + piece])
            yield image_pb2.UploadContextRequest(body=body, digest=digest, offset=offset)
        if break_off:
            await asyncio.sleep(1000)

    return await system.images.UploadContext(requests(), metadata=system.tokens.metadata(user))


async def received(system, digest: str, *, user="alice"):
    request = image_pb2.GetContextRequest(digest=digest)
    return await system.images.GetContext(request, metadata=system.tokens.metadata(user))


async def build(system, files: dict[str, bytes], *, name="shop", platform="", **more):
    """Builds to the end; the image and the output."""
    context = image_pb2.BuildContext(id=(await upload(system, tar_of(files))).id, **more)
    image_id = await system.create(name, context=context, platform=platform)
    return await outcome(system, image_id)


async def outcome(system, image_id: str):
    events = [event async for event in system.watch(image_id)]
    return events[-1].image, [event.output for event in events if event.WhichOneof("event") == "output"]


def docker(engine, *arguments: str) -> str:
    argv = ["docker", "--host", engine.host, *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


STAGES = b"""FROM debian:bookworm AS first
ARG WORD=none
RUN echo $WORD > /word
FROM first AS second
RUN cat /word /word > /words
FROM debian:bookworm
COPY --from=second /words /words
COPY a /a
HEALTHCHECK --interval=5s CMD test -e /a
CMD ["cat", "/a"]
"""


async def test_three_stages_with_arguments(system, engine):
    files = {"Dockerfile": STAGES, "a": b"one"}

    image, output = await build(system, files, build_args={"WORD": "hello"})

    assert image.status == "ready", image.reason
    assert [stage.name for stage in image.stages if stage.name != "base"] == ["resolve", "build", "convert", "compose"]
    assert len(image.layers) == 3
    assert list(image.config.cmd) == ["cat", "/a"]
    healthcheck = image.config.healthcheck
    assert list(healthcheck.command) == ["/bin/sh", "-c", "test -e /a"]
    assert (healthcheck.interval.seconds, healthcheck.timeout.seconds, healthcheck.retries) == (5, 30, 3)
    assert any("COPY --from=second" in line for line in output)
    assert "uhm-build" not in docker(engine, "images")

    changed, _ = await build(system, files | {"a": b"two"}, build_args={"WORD": "hello"})
    assert [layer.reused for layer in changed.layers] == [True, True, False]
    assert (await system.get("shop")).id == changed.id
    assert (await system.get(image.id)).reference == f"shop@{image.digest}"

    stopped, _ = await build(system, files, name="part", target="first", build_args={"WORD": "hello"})
    assert [layer.reused for layer in stopped.layers] == [True, False]
    assert not stopped.config.HasField("healthcheck")
    other, _ = await build(system, files, name="part", target="first", build_args={"WORD": "other"})
    assert other.layers[-1].diff_id != stopped.layers[-1].diff_id


async def test_what_fails_says_why_and_its_output_is_kept(system):
    files = {"Dockerfile": b"FROM debian:bookworm\nRUN echo before; echo oh no; exit 3\n"}

    broken, output = await build(system, files)

    assert broken.status == "failed"
    assert "exit code: 3" in broken.reason
    assert "oh no" in broken.reason
    assert any(line.endswith("oh no") for line in output)
    _, again = await outcome(system, broken.id)
    assert again == output
    absent, _ = await build(system, files, dockerfile="other/Dockerfile")
    assert absent.status == "failed"
    assert "other/Dockerfile" in absent.reason
    target, _ = await build(system, files, target="nowhere")
    assert target.status == "failed"
    assert "nowhere" in target.reason
    text = image_pb2.BuildContext(id=(await upload(system, files["Dockerfile"])).id)
    image, _ = await outcome(system, await system.create("shop", context=text))
    assert "no tar archive" in image.reason
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await build(system, files, dockerfile="../Dockerfile")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_another_platform_is_refused(system):
    files = {"Dockerfile": b"FROM debian:bookworm\n"}
    try:
        image, _ = await build(system, files, platform="linux/s390x")
    except grpc.aio.AioRpcError as error:
        said = error.details()
    else:
        assert image.status == "failed"
        said = image.reason
    assert "linux/s390x" in said

    fits, _ = await build(system, files, platform="linux/amd64")
    assert fits.status == "ready", fits.reason


SECRETIVE = b"""FROM debian:bookworm
ARG ROUND
RUN --mount=type=secret,id=token --mount=type=cache,target=/cache \
 test -s /cache/seen && echo cache$((40 + 2)); \
 sha256sum < /run/secrets/token | tee /cache/seen > /sum; echo $ROUND
"""


@needs_buildkit
async def test_a_secret_is_nowhere_afterwards(system, engine, nats_server, tmp_path):
    files = {"Dockerfile": SECRETIVE + b"RUN test ! -e /run/secrets/token\n"}

    image, output = await build(system, files, secrets={"token": SECRET}, build_args={"ROUND": "1"})

    assert image.status == "ready", image.reason
    assert not any("cache42" in line for line in output)
    _, output = await build(system, files, secrets={"token": SECRET}, build_args={"ROUND": "2"})
    assert any("cache42" in line for line in output)
    required = files["Dockerfile"].replace(b"id=token", b"id=token,required=true")
    without, _ = await build(system, {"Dockerfile": required})
    assert without.status == "failed"
    assert "token" in without.reason
    for directory in (tmp_path, nats_server.directory, engine.directory):
        found = subprocess.run(
            ["grep", "-r", "--text", "--files-with-matches", "--exclude-dir=bases", SECRET.decode(), str(directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stdout == ""
        assert found.returncode == 1, found.stderr
    blob = system.artifacts / "layers" / f"{image.layers[1].diff_id.removeprefix('sha256:')}.erofs"
    assert hashlib.sha256(SECRET).hexdigest().encode() in blob.read_bytes()  # the build did see it


@needs_buildkit
async def test_secrets_of_an_api_that_ended_are_missed(tmp_path, nats_url, engine, bases):
    extra = {"UHM_DOCKER_HOST": engine.host, "UHM_BUILD_NETWORK": "host"}
    async with builder_system(tmp_path, nats_url, bases=bases, **extra) as system:
        context = image_pb2.BuildContext(
            id=(await upload(system, tar_of({"Dockerfile": SECRETIVE}))).id, secrets={"token": SECRET}
        )
        image_id = await system.create("shop", context=context)
        api = system.processes[0]
        api.terminate()
        await asyncio.to_thread(api.wait, 40)
        await system.channel.close(None)
        await system.start_api()
        await system.start_worker()

        image, _ = await outcome(system, image_id)

        assert image.status == "failed"
        assert image.reason.endswith("Build again.")


@needs_buildkit
async def test_a_cancelled_build_frees_the_engine(system, engine):
    files = {"Dockerfile": b"FROM debian:bookworm\nRUN echo begun; exec sleep 98765\n"}
    context = image_pb2.BuildContext(id=(await upload(system, tar_of(files))).id)
    image_id = await system.create("slow", context=context)
    async for event in system.watch(image_id):
        if event.output.endswith(" begun"):
            break
    assert running("sleep", "98765")
    assert running("docker", "--tag=uhm-build:" + image_id)

    await system.cancel(image_id)

    image, output = await outcome(system, image_id)
    assert image.status == "cancelled"
    async with asyncio.timeout(15):
        while running("sleep", "98765") or running("docker", "--tag=uhm-build:" + image_id) or system.staged():
            await asyncio.sleep(0.1)
        while not any(line.endswith(" begun") for line in output):
            _, output = await outcome(system, image_id)
    assert "uhm-build" not in docker(engine, "images")


def running(program: str, argument: str) -> bool:
    """Whether a process of that name has that argument."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith(program) and argument in words:
            return True
    return False


async def test_a_context_that_leads_out_of_itself_harms_nobody(system, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in {
            "../../evil": b"x",
            "/evil": b"x",
            "Dockerfile": b"FROM debian:bookworm\nCOPY . /here\n",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"link{kind.decode()}")
            member.type, member.linkname = kind, "../../../../etc/shadow"
            tar.addfile(member)
    context = image_pb2.BuildContext(id=(await upload(system, buffer.getvalue())).id)

    await outcome(system, await system.create("evil", context=context))

    assert not Path("/evil").exists()
    assert not (tmp_path / "evil").exists()
    assert system.staged() == []
    linked = image_pb2.BuildContext(id=context.id, dockerfile="link2")
    image, output = await outcome(system, await system.create("evil", context=linked))
    assert image.status == "failed"
    assert not any(line.startswith("root:") for line in [*output, *image.reason.splitlines()])
    healthy, _ = await build(system, {"Dockerfile": b"FROM debian:bookworm\n"})
    assert healthy.status == "ready"


async def test_an_upload_that_broke_off_goes_on_over_grpc(system):
    data = tar_of({"Dockerfile": b"FROM debian:bookworm\n", "noise": os.urandom(3 << 20)})
    digest = sha256(data)
    with pytest.raises((TimeoutError, asyncio.CancelledError, grpc.aio.AioRpcError)):
        async with asyncio.timeout(1):
            await upload(system, data[: 2 << 20], digest=digest, break_off=True)

    async with asyncio.timeout(10):
        while (found := await received(system, digest)).received_bytes < 2 << 20:
            await asyncio.sleep(0.05)
    assert (found.received_bytes, found.complete, found.id) == (2 << 20, False, "")
    assert (await received(system, digest, user="bob")).received_bytes == 0
    answer = await upload(system, data, digest=digest, offset=2 << 20)

    assert (answer.size_bytes, answer.digest) == (len(data), digest)
    assert (await received(system, digest)).id == answer.id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await upload(system, data + b"x", digest=sha256(b"something else"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await received(system, sha256(b"something else"))).received_bytes == 0
    image_id = await system.create("shop", context=image_pb2.BuildContext(id=answer.id))
    assert (await system.ended(image_id)).status == "ready"
    again = await system.create("shop", context=image_pb2.BuildContext(id=answer.id))
    assert (await system.ended(again)).status == "ready"


async def test_without_buildkit_the_classic_builder_does_what_it_can(tmp_path, nats_url, engine, bases):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("setpriv", "qemu-img"):
        (programs / name).symlink_to(shutil.which(name))
    extra = {"UHM_DOCKER_HOST": engine.host, "UHM_BUILD_NETWORK": "host"}
    async with builder_system(tmp_path, nats_url, bases=bases, **extra) as system:
        await system.start_worker(PATH=str(programs))
        files = {"Dockerfile": b"FROM debian:bookworm\nRUN echo begun | tee /begun\nCOPY a /a\n", "a": b"one"}

        image, output = await build(system, files)
        changed, _ = await build(system, files | {"a": b"two"})
        secret, _ = await build(system, files, secrets={"token": SECRET})
        broken, _ = await build(system, {"Dockerfile": b"FROM debian:bookworm\nRUN echo oh no; exit 3\n"})

        assert image.status == "ready", image.reason
        assert any(line.startswith("Step 2/3") for line in output)
        assert [layer.reused for layer in changed.layers] == [True, True, False]
        assert secret.status == "failed"
        assert "need BuildKit" in secret.reason
        assert "exit 3" in broken.reason or "code: 3" in broken.reason
        assert "oh no" in broken.reason


LAYERED = b"""FROM debian:bookworm
RUN mkdir -p /one/deep /two && echo a > /one/deep/a && ln /one/deep/a /one/b && echo c > /two/c && mkfifo /two/fifo
RUN rm /one/b && rm -rf /two && mkdir /two && echo d > /two/d && chmod 4751 /one/deep/a && chown 12:34 /one/deep/a
COPY empty /empty
"""


async def test_layers_are_read_where_the_engine_keeps_them(system, engine):
    docker(engine, "pull", "--quiet", "debian:bookworm")
    files = {"Dockerfile": LAYERED, "empty": b""}
    image, _ = await build(system, files)
    assert image.status == "ready", image.reason
    assert "engine.layer_unreadable" not in system.logs()
    blobs = {layer.diff_id: blob(system, layer).read_bytes() for layer in image.layers}
    client = Engine(engine.host)
    docker(engine, "build", "--quiet", "--network=host", "--tag=kept", context_of(files, system.directory))
    diff_ids = client.inspect("kept")["RootFS"]["Layers"]
    stored = LayerDatabase.of(client.inspect("kept")).layers(diff_ids)
    assert list(stored) == diff_ids
    for diff_id, layer in stored.items():
        assert f"sha256:{hashlib.sha256(b''.join(layer.pieces())).hexdigest()}" == diff_id

    await system.delete("shop")
    await system.collect()
    record = stored[diff_ids[2]].record.with_name("cache-id")
    cache_id = record.read_text()
    record.write_text("..")  # the engine has it in memory
    try:
        saved = await system.ended(await system.create("docker-daemon:kept"))
    finally:
        record.write_text(cache_id)
        client.close()

    assert saved.status == "ready", saved.reason
    assert not saved.layers[2].reused
    common = [layer for layer in saved.layers if layer.diff_id in blobs]
    assert common
    for layer in common:
        assert blob(system, layer).read_bytes() == blobs[layer.diff_id]


def blob(system, layer) -> Path:
    return system.artifacts / "layers" / f"{layer.diff_id.removeprefix('sha256:')}.erofs"


def context_of(files: dict[str, bytes], directory: Path) -> str:
    """The same context as a directory."""
    context = directory / "context"
    context.mkdir()
    for name, content in files.items():
        (context / name).write_bytes(content)
    return str(context)
