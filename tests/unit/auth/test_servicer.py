"""The service over real gRPC, wired as it is in production."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import grpc
import jwt
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from uhm_auth.api_keys import LONGEST_SECONDS
from uhm_auth.app import make_server
from uhm_auth.logins import Introspection
from uhm_auth.servicers import auth as auth_servicer
from uhm_auth.settings import AuthSettings
from uhm_common.callers.access import access_of
from uhm_common.callers.api_keys import VerifiedKey
from uhmalguhm.auth.v1 import api_key_pb2, api_key_pb2_grpc, auth_pb2, auth_pb2_grpc, verification_pb2

ANN = {"username": "ann", "password": "test"}
BOB = {"username": "bob", "password": "test"}


@pytest.fixture
async def channel(tmp_path):
    """A channel to a server that has what `make_server` gives it, on a port of its own."""
    settings = AuthSettings(state_dir=tmp_path, bcrypt_cost=4)
    async with make_server(settings) as wired:
        server = grpc.aio.server(interceptors=wired.interceptors)
        wired.add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(0)


@pytest.fixture
def stub(channel):
    return auth_pb2_grpc.AuthServiceStub(channel)


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


async def log_in(stub, user=ANN, **more):
    return await stub.IssueToken(auth_pb2.IssueTokenRequest(**user, **more))


async def register(stub, user=ANN):
    return await stub.CreateUser(auth_pb2.CreateUserRequest(**user))


async def test_a_first_day(stub):
    assert as_rest(await register(stub)) == {"status": "registered", "username": "ann"}

    issued = await log_in(stub)
    assert set(as_rest(issued)) == {"access_token", "refresh_token"}

    refreshed = await stub.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(issued.refresh_token))
    assert set(as_rest(refreshed)) == {"access_token"}

    me = await stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(refreshed.access_token))
    assert as_rest(me) == {"username": "ann", "role": "admin", "scopes": []}

    revoked = await stub.RevokeToken(auth_pb2.RevokeTokenRequest(), metadata=bearer(issued.refresh_token))
    assert as_rest(revoked) == {}
    code, _ = await refusal(stub.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(issued.refresh_token)))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    code, _ = await refusal(
        stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(refreshed.access_token))
    )
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_new_system_has_no_user(stub, tmp_path):
    """No default account, key or invitation: the first who registers is the first who can log in."""
    with closing(sqlite3.connect(tmp_path / "auth.db")) as database:
        for table in ("auth_users", "auth_api_keys", "auth_invitations", "auth_sessions"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    for name in ("root", "admin", "sa", "test", "uhmalguhm"):
        code, _ = await refusal(log_in(stub, {"username": name, "password": name}))
        assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_session_that_rotates(stub):
    await register(stub)
    issued = await log_in(stub, rotate=True)
    refreshed = await stub.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(issued.refresh_token))
    assert set(as_rest(refreshed)) == {"access_token", "refresh_token"}


async def test_the_key_set_verifies_what_was_issued(stub):
    await register(stub)
    issued = await log_in(stub)

    jwk, _following = as_rest(await stub.GetKeys(auth_pb2.GetKeysRequest()))["keys"]

    assert jwk["kid"] == jwt.get_unverified_header(issued.access_token)["kid"]
    options = {"audience": "uhmalguhm", "issuer": "uhmalguhm"}
    assert jwt.decode(issued.access_token, jwt.PyJWK(jwk), algorithms=["EdDSA"], **options)["sub"] == "ann"


async def test_the_key_set_may_be_kept_for_a_moment(stub):
    call = stub.GetKeys(auth_pb2.GetKeysRequest())
    await call
    assert dict(await call.initial_metadata())["cache-control"] == "public, max-age=60"


async def test_rotating_the_keys(stub):
    await register(stub)
    await register(stub, BOB)
    ann, bob = await log_in(stub), await log_in(stub, BOB)
    request = auth_pb2.RotateKeysRequest()
    code, _ = await refusal(stub.RotateKeys(request, metadata=bearer(bob.access_token)))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    following = (await stub.GetKeys(auth_pb2.GetKeysRequest())).keys[1].kid

    rotated = await stub.RotateKeys(request, metadata=bearer(ann.access_token))

    assert rotated.kid == following
    assert jwt.get_unverified_header((await log_in(stub)).access_token)["kid"] == following
    for token in (ann.access_token, bob.access_token):
        assert await stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(token))


async def test_sessions_listed_and_ended(stub):
    await register(stub)
    where = [("x-uhm-client-address", "192.0.2.7"), ("x-uhm-user-agent", "curl/8")]
    first = await stub.IssueToken(auth_pb2.IssueTokenRequest(**ANN, rotate=True), metadata=where)
    second = await log_in(stub)
    listed = await stub.ListSessions(auth_pb2.ListSessionsRequest(), metadata=bearer(second.access_token))
    by_address = {session.address: session for session in listed.sessions}
    there, here = by_address["192.0.2.7"], by_address[""]

    assert (there.user_agent, there.rotates, there.current) == ("curl/8", True, False)
    assert (here.rotates, here.current) == (False, True)
    assert there.create_time.seconds <= there.use_time.seconds < there.expire_time.seconds

    request = auth_pb2.DeleteSessionRequest(id=there.id)
    await stub.DeleteSession(request, metadata=bearer(second.access_token))

    me = auth_pb2.GetCurrentUserRequest()
    code, _ = await refusal(stub.GetCurrentUser(me, metadata=bearer(first.access_token)))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    code, _ = await refusal(stub.DeleteSession(request, metadata=bearer(second.access_token)))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_introspection_as_rfc_7662_has_it(stub):
    await register(stub)
    issued = await log_in(stub)
    claims = jwt.decode(issued.access_token, options={"verify_signature": False})

    async def introspect(token):
        request = auth_pb2.IntrospectTokenRequest(token=token)
        return as_rest(await stub.IntrospectToken(request, metadata=bearer(issued.access_token)))

    assert await introspect(issued.access_token) == {
        "active": True,
        "token_type": "access",
        "username": "ann",
        "scope": "",
        **{name: claims[name] for name in ("sub", "iss", "aud", "jti", "iat", "nbf", "exp")},
    }
    assert (await introspect(issued.refresh_token))["token_type"] == "refresh"
    inactive = await introspect("nonsense")
    assert inactive.pop("active") is False
    assert not any(inactive.values())


def test_a_key_that_is_good_beyond_2038():
    key = VerifiedKey(id="k1", username="ann", role="user", scopes=frozenset(), expires_at=2**31)
    assert as_rest(auth_servicer._introspection(Introspection(username="ann", api_key=key)))["exp"] == 2**31


async def test_an_api_key_is_let_in_for_its_scopes(channel, stub):
    await register(stub)
    issued = await log_in(stub)
    keys = api_key_pb2_grpc.ApiKeyServiceStub(channel)
    made = await keys.CreateApiKey(
        api_key_pb2.CreateApiKeyRequest(name="ci", scopes=["account.read"], ttl=Duration(seconds=LONGEST_SECONDS)),
        metadata=bearer(issued.access_token),
    )
    me = await stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(made.key))
    assert (me.username, list(me.scopes)) == ("ann", ["account.read"])
    told = await stub.IntrospectToken(
        auth_pb2.IntrospectTokenRequest(token=made.key), metadata=bearer(issued.access_token)
    )
    assert (told.token_type, told.scope, told.jti) == ("api_key", "account.read", made.api_key.id)
    assert as_rest(told)["exp"] == made.api_key.expire_time.seconds
    code, _ = await refusal(stub.ListSessions(auth_pb2.ListSessionsRequest(), metadata=bearer(made.key)))
    assert code is grpc.StatusCode.PERMISSION_DENIED

    request = api_key_pb2.DeleteApiKeyRequest(id=made.api_key.id)
    await keys.DeleteApiKey(request, metadata=bearer(issued.access_token))

    code, _ = await refusal(stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(made.key)))
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_refusals(stub):
    await register(stub)
    issued = await log_in(stub)
    me, refresh = auth_pb2.GetCurrentUserRequest(), auth_pb2.RefreshTokenRequest()
    revoke, create = auth_pb2.RevokeTokenRequest(), auth_pb2.CreateUserRequest
    table = [
        (stub.CreateUser(create(**ANN)), "ALREADY_EXISTS", "The username 'ann' is taken."),
        (stub.CreateUser(create(username="a b", password="x")), "INVALID_ARGUMENT", "That cannot be a username."),
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


def test_what_needs_no_access_token():
    """Only how one is got, and what looks at the bearer itself or is spoken between services."""
    services = [
        *auth_pb2.DESCRIPTOR.services_by_name.values(),
        *verification_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    paths = [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]
    assert {path.rpartition("/")[2] for path in paths if access_of(path).public} == {
        "CreateUser",
        "GetPolicy",
        "ResetPassword",
        "IssueToken",
        "RefreshToken",
        "RevokeToken",
        "GetKeys",
        "WatchRevocations",
        "VerifyApiKey",
    }
