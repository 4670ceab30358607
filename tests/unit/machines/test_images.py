from typing import Any, cast

import grpc
import pytest

from uhm_common.errors import InternalError, NotFound, Unauthenticated, Unavailable
from uhm_common.identity import Identity
from uhm_machines.errors import ImageNotReady, InvalidRequest
from uhm_machines.images import BuilderImages
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

ANNA = Identity(username="anna", session_id="s", token="t0ken")


class StandInImages(image_pb2_grpc.ImageServiceServicer):
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
                config=image_pb2.ImageConfig(cmd=["sh"], env=["A=1"], exposed_ports=["80/tcp"]),
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
