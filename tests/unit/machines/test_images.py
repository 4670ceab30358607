import json
from dataclasses import asdict, fields
from typing import Any, cast

import grpc
import pytest

from uhm_builder.images import Healthcheck as BuilderHealthcheck
from uhm_builder.images import ImageConfig as BuilderConfig
from uhm_common.callers.identity import Identity
from uhm_common.errors import InternalError, NotFound, Unauthenticated, Unavailable
from uhm_machines.errors import ImageNotReady, InvalidRequest
from uhm_machines.images import BuilderImages, Healthcheck, ImageConfig, image_of_event
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

ANNA = Identity(username="anna", session_id="s", token="t0ken")


PLAIN = image_pb2.ImageConfig(cmd=["sh"], env=["A=1"], exposed_ports=["80/tcp"])
WHOLE = BuilderConfig(
    entrypoint=("/run",),
    cmd=("a", "b"),
    env=("A=1",),
    working_dir="/srv",
    user="app",
    exposed_ports=("80/tcp",),
    stop_signal="SIGQUIT",
    labels={"a": "b"},
    volumes=("/data",),
    architecture="amd64",
    hostname="box",
    healthcheck=BuilderHealthcheck(
        command=("/bin/sh", "-c", "up"), interval_ns=5_000_000_001, timeout_ns=2, start_period_ns=0, retries=4
    ),
)
CHECK = Healthcheck(
    command=("/bin/sh", "-c", "up"), interval_ns=5_000_000_001, timeout_ns=2, start_period_ns=0, retries=4
)


class StandInImages(image_pb2_grpc.ImageServiceServicer):
    config = PLAIN

    async def GetImage(self, request, context):  # noqa: N802
        if request.id in grpc.StatusCode.__members__:
            await context.abort(grpc.StatusCode[request.id], "details")
        assert dict(context.invocation_metadata())["authorization"] == "Bearer t0ken"
        return image_pb2.GetImageResponse(
            image=image_pb2.Image(
                id="i1",
                reference="nginx:latest",
                status=request.id,
                reason="No layers.",
                disk_digest="sha256:aa",
                config=self.config,
            )
        )


@pytest.fixture
async def images():
    server = grpc.aio.server()
    image_pb2_grpc.add_ImageServiceServicer_to_server(cast("Any", StandInImages)(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield BuilderImages(channel)
    await server.stop(None)


async def test_a_ready_image(images):
    image = await images.resolve("ready", identity=ANNA)
    assert (image.id, image.reference, image.disk_digest) == ("i1", "nginx:latest", "sha256:aa")
    assert (image.config.cmd, image.config.env, image.config.exposed_ports) == (("sh",), ("A=1",), ("80/tcp",))
    assert image.config.healthcheck is None


async def test_a_health_check_comes_with_the_image(images, monkeypatch):
    check = image_pb2.Healthcheck(command=CHECK.command, retries=4)
    check.interval.FromNanoseconds(CHECK.interval_ns)
    check.timeout.FromNanoseconds(CHECK.timeout_ns)
    monkeypatch.setattr(StandInImages, "config", image_pb2.ImageConfig(cmd=["sh"], healthcheck=check))
    assert (await images.resolve("ready", identity=ANNA)).config.healthcheck == CHECK


def an_event(**config):
    """As the builder announces an image, through JSON."""
    event = {"id": "i1", "owner": "anna", "reference": "nginx:latest", "disk_digest": "sha256:aa"}
    return json.loads(json.dumps(event | config))


def test_an_image_that_was_announced():
    image = image_of_event(an_event(config=asdict(WHOLE)))
    assert image is not None
    assert (image.id, image.reference, image.disk_digest) == ("i1", "nginx:latest", "sha256:aa")
    assert image.config.healthcheck == CHECK
    for field in fields(ImageConfig):
        if field.name != "healthcheck":
            assert getattr(image.config, field.name) == getattr(WHOLE, field.name)


async def test_an_announced_image_is_the_one_that_is_looked_up(images, monkeypatch):
    known = {"cmd": WHOLE.cmd, "env": WHOLE.env, "exposed_ports": WHOLE.exposed_ports, "hostname": WHOLE.hostname}
    config = image_pb2.ImageConfig(**known)
    monkeypatch.setattr(StandInImages, "config", config)
    announced = an_event(config=asdict(BuilderConfig(**known)))
    assert image_of_event(announced) == await images.resolve("ready", identity=ANNA)


@pytest.mark.parametrize("event", [an_event(), an_event(config=None)])
def test_an_announcement_without_a_configuration(event):
    assert image_of_event(event) is None


@pytest.mark.parametrize(
    "event",
    [{"config": {}}, an_event(config={"healthcheck": {"command": ["x"]}}), an_event(config={"healthcheck": {"x": 1}})],
)
def test_an_announcement_that_cannot_be_understood(event):
    with pytest.raises((KeyError, TypeError)):
        image_of_event(event)


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("building", ImageNotReady, "still being built"),
        ("failed", ImageNotReady, "it is failed. No layers."),
        ("cancelled", ImageNotReady, "it is cancelled"),
        ("NOT_FOUND", NotFound, "no image 'NOT_FOUND'"),
        ("UNAVAILABLE", Unavailable, "does not answer"),
        ("INVALID_ARGUMENT", InvalidRequest, "details"),
        ("UNAUTHENTICATED", Unauthenticated, "details"),
        ("DATA_LOSS", InternalError, "DATA_LOSS"),
    ],
)
async def test_an_image_that_cannot_be_run(images, reference, error, said):
    with pytest.raises(error, match=said):
        await images.resolve(reference, identity=ANNA)
