"""The same mistake, made through REST, gRPC and the command line, gets the same clear answer, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field

import grpc
import pytest

from tests.e2e.harness import SPARES
from tests.servers import free_ports
from uhm_auth.app import open_core
from uhm_auth.settings import AuthSettings
from uhm_auth.stores.sessions import Session
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc
from uhmalguhm.machines.v1 import machine_pb2, machine_pb2_grpc

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CREATE_IMAGE = "/api/v1/images"


@pytest.fixture(scope="module")
def token(system):
    return system.user("careless")


@pytest.fixture(scope="module")
def ready_image(system, token):
    """The id of the hello image."""
    created = system.curl(CREATE_IMAGE, token=token, data='{"image":"hello"}').json
    assert system.image(created["id"], token=token)["status"] == "ready"
    return created["id"]


@pytest.fixture
def channel(system):
    with system.channel() as channel:
        yield channel


def metadata(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


def refused(call, request, token: str, code: grpc.StatusCode) -> str:
    """The message of a gRPC call that must end with this code."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=metadata(token), timeout=30)
    assert caught.value.code() is code
    return caught.value.details()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong wish for an image."""

    asked: dict = field(default_factory=lambda: {"image": "nginx"})
    token: str = "valid"
    status: int
    code: grpc.StatusCode
    says: str


MISTAKES = {
    "no token": Mistake(token="", status=401, code=grpc.StatusCode.UNAUTHENTICATED, says="A token is needed"),
    "not a token": Mistake(token="abc", status=401, code=grpc.StatusCode.UNAUTHENTICATED, says="not a JSON Web Token"),
    "expired token": Mistake(token="expired", status=401, code=grpc.StatusCode.UNAUTHENTICATED, says="has expired"),
    "refresh token as access token": Mistake(
        token="refresh", status=401, code=grpc.StatusCode.UNAUTHENTICATED, says="This is a refresh token"
    ),
    "malformed reference": Mistake(
        asked={"image": "Not A Name"}, status=400, code=grpc.StatusCode.INVALID_ARGUMENT, says="Not A Name"
    ),
    "tag given twice": Mistake(
        asked={"image": "nginx:1", "tag": "2"}, status=400, code=grpc.StatusCode.INVALID_ARGUMENT, says="tag"
    ),
    "no image": Mistake(asked={}, status=400, code=grpc.StatusCode.INVALID_ARGUMENT, says="image"),
}


@pytest.fixture
def tokens(system, token):
    """Tokens by the words that mistakes use."""
    credentials = json.dumps({"username": "careless", "password": "test"})
    issued = system.curl("/api/v1/token/issue", data=credentials).json
    return {"valid": token, "refresh": issued["refresh_token"], "": "", "abc": "abc", "expired": expired(system)}


def expired(system) -> str:
    """A token signed with the system's own key, whose time is over."""
    then = int(time.time()) - 3600
    session = Session(
        id="",
        username="careless",
        role="user",
        rotates=False,
        token_id="",
        token_issued_at=then,
        created_at=then,
        used_at=then,
        expires_at=then + 60,
    )

    async def sign() -> str:
        async with open_core(AuthSettings(state_dir=system.state_dir)) as core:
            return core.tokens.access(session, fresh=False, now=then)

    return asyncio.run(sign())


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_wrong_wish_for_an_image(system, channel, tokens, mistake):
    token = tokens[mistake.token]
    before = system.curl(CREATE_IMAGE, token=tokens["valid"]).json["images"]

    rest = system.curl(CREATE_IMAGE, token=token, data=json.dumps(mistake.asked))
    assert rest.status == mistake.status, rest.text
    assert set(rest.json) == {"code", "message", "details"}
    assert rest.json["code"] == mistake.code.value[0]
    assert mistake.says in rest.json["message"]

    images = image_pb2_grpc.ImageServiceStub(channel)
    assert mistake.says in refused(
        images.CreateImage, image_pb2.CreateImageRequest(**mistake.asked), token, mistake.code
    )

    if "image" in mistake.asked and "tag" not in mistake.asked:
        line = system.uhm("pull", mistake.asked["image"], token=token or "", check=False)
        if mistake.token:
            assert line.returncode == 1
            assert mistake.says in line.stderr
    assert system.curl(CREATE_IMAGE, token=tokens["valid"]).json["images"] == before


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"image":', "JSON"),
        ('{"image": 5}', "image"),
        ('{"imagine": "nginx"}', "imagine"),
        ('["image"]', ""),
    ],
    ids=["broken JSON", "wrong type", "unknown field", "not an object"],
)
def test_wrong_body(system, token, body, says):
    answer = system.curl(CREATE_IMAGE, token=token, data=body)
    assert (answer.status, answer.json["code"]) == (400, 3), answer.text
    assert says in answer.json["message"]


def test_unknown_path_and_method(system):
    assert system.curl("/api/v1/nothing").status == 404
    assert system.curl("/api/v1/token/issue").status == 405


def test_unknown_image_in_the_registry(system, token):
    created = system.curl(CREATE_IMAGE, token=token, data='{"image":"no-such-image"}').json
    image = system.image(created["id"], token=token)
    assert image["status"] == "failed"
    assert "no-such-image" in image["reason"]
    line = system.uhm("pull", "no-such-image", token=token, check=False)
    assert line.returncode == 1
    assert "no-such-image" in line.stderr


def test_unknown_image_of_a_machine(system, channel, token):
    rest = system.curl("/api/v1/machines", token=token, data='{"image":"nobody-made-this"}')
    assert rest.status == 404
    assert "nobody-made-this" in rest.json["message"]
    machines = machine_pb2_grpc.MachineServiceStub(channel)
    request = machine_pb2.CreateMachineRequest(image="nobody-made-this")
    assert "nobody-made-this" in refused(machines.CreateMachine, request, token, grpc.StatusCode.NOT_FOUND)
    assert system.curl("/api/v1/machines?all=true", token=token).json["machines"] == []


def test_others_images_are_not_there(system, token, ready_image):
    assert system.curl(f"/api/v1/images/{ready_image}", token=token).status == 200
    assert system.curl(f"/api/v1/images/{ready_image}", token=system.user("stranger")).status == 404


def test_duplicate_user(system, channel, token):
    credentials = {"username": "careless", "password": "other"}
    rest = system.curl("/api/v1/user/create", data=json.dumps(credentials))
    assert (rest.status, rest.json["code"]) == (409, 6)
    assert "careless" in rest.json["message"]
    auth = auth_pb2_grpc.AuthServiceStub(channel)
    request = auth_pb2.CreateUserRequest(**credentials)
    assert "careless" in refused(auth.CreateUser, request, "", grpc.StatusCode.ALREADY_EXISTS)
    line = system.uhm("register", "careless", "other", check=False)
    assert line.returncode == 1
    assert "careless" in line.stderr
    assert system.curl("/api/v1/token/issue", data=json.dumps(credentials)).status == 401


def test_port_in_use(system, channel, token, ready_image):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = {"image": ready_image, "ports": [{"host_port": port, "guest_port": 80}]}
        rest = system.curl("/api/v1/machines", token=token, data=json.dumps(asked))
        assert rest.status in (400, 409), rest.text
        assert str(port) in rest.json["message"]
        machines = machine_pb2_grpc.MachineServiceStub(channel)
        request = machine_pb2.CreateMachineRequest(
            image=ready_image, ports=[machine_pb2.PortMapping(host_port=port, guest_port=80)]
        )
        with pytest.raises(grpc.RpcError) as caught:
            machines.CreateMachine(request, metadata=metadata(token), timeout=30)
        assert str(port) in caught.value.details()
        line = system.uhm("run", "-d", "-p", f"{port}:80", "hello", token=token, check=False)
        assert line.returncode == 1
        assert str(port) in line.stderr
    assert system.curl("/api/v1/machines?all=true", token=token).json["machines"] == []
    assert not list(system.state_dir.glob("artifacts/disks/*/leases/*")), "what was refused has let go of its image"
    directories = [path for path in (system.state_dir / "machines").iterdir() if path.is_dir()]
    assert len(directories) <= SPARES, "only machines that wait to be used"


def test_ports_of_a_second_system_in_use(system, tmp_path):
    (free,) = free_ports(1)
    ports = ("--rest-port", str(system.rest_port), "--grpc-port", str(free))
    line = system.uhm("up", "--state-dir", str(tmp_path / "second"), *ports, "--detach", check=False)
    assert line.returncode == 1
    assert str(system.rest_port) in line.stderr
