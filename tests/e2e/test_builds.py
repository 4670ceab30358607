"""Dockerfile builds as users ask for them: the command line, REST and gRPC, with a context of 200 MB."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from urllib.parse import quote

import pytest
from google.api import httpbody_pb2

from tests.e2e.harness import UHM
from uhm.context import open_context
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("dockerd") is None, reason="an engine of our own needs root and dockerd"
    ),
]

MIB = 1 << 20
CONTEXT_BYTES = 200 * MIB
DOCKERFILE = """FROM debian:bookworm AS counted
COPY noise /noise
RUN stat --format=%s /noise > /count
FROM debian:bookworm AS named
ARG NAME
RUN --mount=type=secret,id=token echo $NAME $(sha256sum < /run/secrets/token) > /name
FROM debian:bookworm
COPY --from=counted /count /count
COPY --from=named /name /name
CMD ["cat", "/count", "/name"]
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A context of 200 MB."""
    directory = tmp_path_factory.mktemp("context")
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / ".dockerignore").write_text("ignored\n")
    (directory / "ignored").write_bytes(bytes(MIB))
    with (directory / "noise").open("wb") as file:
        for _ in range(CONTEXT_BYTES // MIB):
            file.write(os.urandom(MIB))
    yield directory
    shutil.rmtree(directory)


def test_a_large_context_over_rest_and_grpc(system, large, tmp_path):
    token = system.user("builder")
    (tmp_path / "token").write_text("hush-hush-8c6976e5")
    with open_context(large) as context:
        sha256 = hashlib.sha256()
        for piece in context.tar():
            sha256.update(piece)
    digest = f"sha256:{sha256.hexdigest()}"
    there = break_off(system, context.tar(), digest=digest, token=token)

    arguments = ("--build-arg", "NAME=shop", "--secret", f"id=token,src={tmp_path}/token", "--json")
    built = json.loads(system.uhm("build", "-t", "large", *arguments, str(large), token=token, timeout=250).stdout)

    assert 0 < there < CONTEXT_BYTES
    assert built["status"] == "ready"
    assert len(built["layers"]) == 3
    whole = system.curl(f"/api/v1/contexts/{quote(digest, safe='')}", token=token).json
    assert whole["complete"]
    assert int(whole["received_bytes"]) > CONTEXT_BYTES
    again = json.loads(system.uhm("build", "-t", "large", *arguments, str(large), token=token, timeout=250).stdout)
    assert again["disk_digest"] == built["disk_digest"]

    other = [("authorization", f"Bearer {system.user('other-builder')}")]
    with system.channel() as channel:
        images = image_pb2_grpc.ImageServiceStub(channel)
        asked = image_pb2.GetContextRequest(digest=digest)
        assert images.GetContext(asked, metadata=other).received_bytes == 0
        uploaded = images.UploadContext(requests(context.tar(), digest=digest), metadata=other)
        assert images.GetContext(asked, metadata=other).id == uploaded.id != whole["id"]
        wish = image_pb2.BuildContext(
            id=uploaded.id, build_args={"NAME": "shop"}, secrets={"token": b"hush-hush-8c6976e5"}
        )
        created = images.CreateImage(image_pb2.CreateImageRequest(image="large", context=wish), metadata=other)
        *_, last = images.WatchImage(image_pb2.WatchImageRequest(id=created.id), metadata=other)
        assert last.image.disk_digest == built["disk_digest"]


def break_off(system, pieces, *, digest: str, token: str) -> int:
    """Sends some of an upload through REST, and goes away; answers how much has arrived."""
    path = f"/api/v1/contexts?digest={digest}"
    argv = ["curl", "-sS", "-T", "-", "-X", "POST", "-H", f"Authorization: Bearer {token}", system.url + path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as curl:
        sent = 0
        for piece in pieces:
            curl.stdin.write(piece)
            sent += len(piece)
            if sent > 50 * MIB:
                break
        curl.kill()
    return int(system.curl(f"/api/v1/contexts/{quote(digest, safe='')}", token=token).json.get("received_bytes", 0))


def requests(pieces, *, digest: str):
    for piece in pieces:
        yield image_pb2.UploadContextRequest(body=httpbody_pb2.HttpBody(data=piece), digest=digest)


def test_an_archive_on_standard_input(system):
    token = system.user("builder")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in {"d/Dockerfile": b"FROM debian:bookworm\nCOPY a /a\n", "a": b"one"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

    env = system.env | {"UHM_URL": system.url, "UHM_TOKEN": token}
    argv = [UHM, "build", "-t", "packed", "-f", "d/Dockerfile", "-"]

    done = subprocess.run(argv, env=env, input=archive.getvalue(), capture_output=True, timeout=120, check=True)

    assert b"packed:latest is ready" in done.stdout
    assert "COPY a /a" in system.uhm("inspect", "--build-output", "packed", token=token).stdout
    wrong = subprocess.run(argv, env=env, input=b"FROM debian\n", capture_output=True, timeout=120, check=False)
    assert (wrong.returncode, b"no tar archive" in wrong.stderr) == (1, True)
