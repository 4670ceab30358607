"""The service over real gRPC, wired as it is in production."""

from __future__ import annotations

import json

import grpc
import jwt
import pytest
from google.protobuf import json_format

from uhm_auth.app import make_server
from uhm_auth.servicer import PUBLIC_METHODS, SERVICE_NAME
from uhm_auth.settings import AuthSettings
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

ANN = {"username": "ann", "password": "test"}


@pytest.fixture
async def stub(tmp_path):
    """A client of a server that has what `make_server` gives it, on a port of its own."""
    settings = AuthSettings(state_dir=tmp_path, bcrypt_cost=4)
    async with make_server(settings) as wired:
        server = grpc.aio.server(interceptors=wired.interceptors)
        wired.add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield auth_pb2_grpc.AuthServiceStub(channel)
        finally:
            await server.stop(0)


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def as_rest(message) -> dict:
    """As the gateway shows it: the names of the proto, empty fields as well unless they are optional."""
    return json.loads(
        json_format.MessageToJson(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def log_in(stub, **more):
    return await stub.IssueToken(auth_pb2.IssueTokenRequest(**ANN, **more))


async def test_a_first_day(stub):
    registered = await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
    assert as_rest(registered) == {"status": "registered", "username": "ann"}

    issued = await log_in(stub)
    assert set(as_rest(issued)) == {"access_token", "refresh_token"}

    refreshed = await stub.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(issued.refresh_token))
    assert set(as_rest(refreshed)) == {"access_token"}

    me = await stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(refreshed.access_token))
    assert as_rest(me) == {"username": "ann"}

    revoked = await stub.RevokeToken(auth_pb2.RevokeTokenRequest(), metadata=bearer(issued.refresh_token))
    assert as_rest(revoked) == {}
    code, _ = await refusal(stub.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(issued.refresh_token)))
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_session_that_rotates(stub):
    await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
    issued = await log_in(stub, rotate=True)
    refreshed = await stub.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(issued.refresh_token))
    assert set(as_rest(refreshed)) == {"access_token", "refresh_token"}


async def test_the_key_set_verifies_what_was_issued(stub):
    await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
    issued = await log_in(stub)

    (jwk,) = as_rest(await stub.GetKeys(auth_pb2.GetKeysRequest()))["keys"]

    assert jwk["kid"] == jwt.get_unverified_header(issued.access_token)["kid"]
    options = {"audience": "uhmalguhm", "issuer": "uhmalguhm"}
    assert jwt.decode(issued.access_token, jwt.PyJWK(jwk), algorithms=["EdDSA"], **options)["sub"] == "ann"


async def test_refusals(stub):
    await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
    issued = await log_in(stub)
    me, refresh = auth_pb2.GetCurrentUserRequest(), auth_pb2.RefreshTokenRequest()
    revoke, create = auth_pb2.RevokeTokenRequest(), auth_pb2.CreateUserRequest
    table = [
        (stub.CreateUser(create(**ANN)), "ALREADY_EXISTS", "The username 'ann' is taken."),
        (stub.CreateUser(create(username="a b", password="x")), "INVALID_ARGUMENT", "'a b' cannot be a username."),
        (stub.CreateUser(create(username="bob")), "INVALID_ARGUMENT", "The password is too short"),
        (
            stub.IssueToken(auth_pb2.IssueTokenRequest(username="ann")),
            "UNAUTHENTICATED",
            "The username or the password",
        ),
        (stub.GetCurrentUser(me), "UNAUTHENTICATED", "A token is needed."),
        (stub.RefreshToken(refresh), "UNAUTHENTICATED", "A token is needed."),
        (stub.RevokeToken(revoke), "UNAUTHENTICATED", "A token is needed."),
        (
            stub.GetCurrentUser(me, metadata=bearer(issued.refresh_token)),
            "UNAUTHENTICATED",
            "This is a refresh token; an access token is needed.",
        ),
        (
            stub.RefreshToken(refresh, metadata=bearer(issued.access_token)),
            "UNAUTHENTICATED",
            "This is an access token; a refresh token is needed.",
        ),
    ]
    for call, code, message in table:
        got, details = await refusal(call)
        assert (got.name, details[: len(message)]) == (code, message)


def test_only_who_you_are_needs_an_access_token():
    methods = {method.name for method in auth_pb2.DESCRIPTOR.services_by_name["AuthService"].methods}
    closed = methods - {name.rpartition("/")[2] for name in PUBLIC_METHODS}
    assert closed == {"GetCurrentUser"}
    assert all(name.startswith(f"/{SERVICE_NAME}/") for name in PUBLIC_METHODS)
