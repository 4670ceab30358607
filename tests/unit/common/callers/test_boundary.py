"""The interceptor, around a real gRPC server on loopback."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import grpc
import pytest
import structlog
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from sqlalchemy.exc import OperationalError

from uhm_common.callers.api_keys import VerifiedKey
from uhm_common.callers.boundary import Boundary
from uhm_common.callers.calls import current_call
from uhm_common.callers.identity import current_identity
from uhm_common.callers.revocations import Revocation
from uhm_common.callers.verifier import TokenVerifier
from uhm_common.errors import InternalError, NotFound
from uhmalguhm.access.v1 import access_pb2

SERVICE = "test.boundary.Echo"
API_KEY = f"uhm_{'0' * 16}_{'x' * 43}"
FAILURES = {
    b"not-found": lambda: NotFound("No such image.", hint="Pull it.", code="x", event="y", ms=1),
    b"ours": lambda: InternalError("The disk /secret/path is broken.", path="/secret/path"),
    b"bug": lambda: ZeroDivisionError("secret"),
}


def behave(request: bytes) -> bytes:
    """Fails as asked, else answers who calls."""
    if request in FAILURES:
        failure = FAILURES[request]()
        raise failure
    return b"public" if request == b"public" else current_identity().username.encode()


async def unary(request, _context):
    return behave(request)


async def many(request, _context):
    yield b"first"
    yield behave(request)


async def collect(requests, _context):
    return behave(b"".join([request async for request in requests]))


async def abort(_request, context):
    await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")


async def where_from(_request, _context):
    call = current_call()
    return f"{call.request_id} {call.address} {call.user_agent}".encode()


async def forever(_request, _context):
    yield b"first"
    await asyncio.Event().wait()


flooded = asyncio.Event()


async def flood(_request, _context):
    try:
        while True:
            yield b"x" * 65536
    finally:
        flooded.set()


async def listen(requests, _context):
    return b"".join([request async for request in requests])


async def converse(requests, _context):
    async for request in requests:
        yield request


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Public": grpc.unary_unary_rpc_method_handler(unary),
    "Closed": grpc.unary_unary_rpc_method_handler(unary),
    "Unsaid": grpc.unary_unary_rpc_method_handler(unary),
    "Rule": grpc.unary_unary_rpc_method_handler(unary),
    "Once": grpc.unary_unary_rpc_method_handler(unary),
    "WhereFrom": grpc.unary_unary_rpc_method_handler(where_from),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Abort": grpc.unary_unary_rpc_method_handler(abort),
    "Forever": grpc.unary_stream_rpc_method_handler(forever),
    "Flood": grpc.unary_stream_rpc_method_handler(flood),
    "Listen": grpc.stream_unary_rpc_method_handler(listen),
    "Converse": grpc.stream_stream_rpc_method_handler(converse),
}
ACCESS = {
    "Public": access_pb2.Access(public=True),
    "Closed": access_pb2.Access(),
    "Rule": access_pb2.Access(scope="users.write", admin=True),
    "Once": access_pb2.Access(idempotency_key=True),
}


def describe() -> None:
    """Has the methods say who may call them, all but one."""
    file = descriptor_pb2.FileDescriptorProto(name="test/boundary.proto", package="test.boundary")
    file.message_type.add(name="Bytes")
    service = file.service.add(name="Echo")
    for name in HANDLERS:
        method = service.method.add(name=name, input_type=".test.boundary.Bytes", output_type=".test.boundary.Bytes")
        if name != "Unsaid":
            method.options.Extensions[access_pb2.access].CopyFrom(
                ACCESS.get(name, access_pb2.Access(scope="echoes.read"))
            )
    descriptor_pool.Default().Add(file)


describe()


def add(server):
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
    states = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)


class ApiKeys:
    """Knows one key, of which the test says what it may be used for."""

    scopes = frozenset({"echoes.read"})
    role = "user"
    expires_at: int | None = None

    async def verify(self, _key):
        return VerifiedKey(id="k1", username="bot", role=self.role, scopes=self.scopes, expires_at=self.expires_at)


@pytest.fixture
def api_keys() -> ApiKeys:
    return ApiKeys()


@pytest.fixture
def verifier(signer, api_keys) -> TokenVerifier:
    return TokenVerifier(signer, issuer="test-issuer", audience="test-audience", api_keys=api_keys)


@pytest.fixture
async def channel(verifier, serving):
    async with serving(add, interceptors=[Boundary(verifier=verifier)]) as channel:
        yield channel


@pytest.fixture
def bearer(signer):
    return [("authorization", f"Bearer {signer.token()}"), ("x-request-id", "r-1"), ("x-raw-bin", b"\xff")]


async def refusal(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_call_knows_its_caller(channel, bearer):
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = await channel.unary_unary(f"/{SERVICE}/Unary")(b"", metadata=bearer)

    assert answer == b"ann"
    (line,) = lines
    assert (line["event"], line["method"], line["request_id"]) == ("call.done", f"/{SERVICE}/Unary", "r-1")
    assert line["ms"] >= 0


async def test_streams_know_it_too(channel, bearer):
    answers = [answer async for answer in channel.unary_stream(f"/{SERVICE}/Many")(b"", metadata=bearer)]
    assert answers == [b"first", b"ann"]
    assert await channel.stream_unary(f"/{SERVICE}/Collect")(iter([b"a", b"b"]), metadata=bearer) == b"ann"


async def test_one_call_does_not_leave_its_caller_to_the_next(channel, bearer):
    await channel.unary_unary(f"/{SERVICE}/Unary")(b"", metadata=bearer)

    error = await refusal(channel.unary_unary(f"/{SERVICE}/Public")(b""))

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("metadata", [[], [("authorization", "Bearer nonsense")]])
async def test_without_a_good_token(channel, metadata):
    error = await refusal(channel.unary_unary(f"/{SERVICE}/Unary")(b"public", metadata=metadata))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "uhm login" in error.details()

    stream = channel.unary_stream(f"/{SERVICE}/Many")(b"public", metadata=metadata)
    assert (await refusal(stream.read())).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_public_methods_and_health_need_none(channel):
    assert await channel.unary_unary(f"/{SERVICE}/Public")(b"public") == b"public"
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_without_a_verifier_nothing_needs_one(serving):
    async with serving(add, interceptors=[Boundary(verifier=None)]) as channel:
        assert await channel.unary_unary(f"/{SERVICE}/Unary")(b"public") == b"public"


async def test_an_error_for_the_user(channel, bearer):
    with structlog.testing.capture_logs() as lines:
        error = await refusal(channel.unary_unary(f"/{SERVICE}/Unary")(b"not-found", metadata=bearer))

    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "No such image. Pull it.")
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    assert (info.reason, info.metadata["event"]) == ("NOT_FOUND", "y")
    assert [(line["event"], line["code"], line["reason"]) for line in lines] == [
        ("call.refused", "NOT_FOUND", "NOT_FOUND")
    ]
    assert "No such image" not in str(lines)  # a message may repeat a secret that was sent


@pytest.mark.parametrize("fault", [b"ours", b"bug"])
async def test_a_fault_of_ours_is_told_by_its_number_only(channel, bearer, fault):
    with structlog.testing.capture_logs() as lines:
        error = await refusal(channel.unary_unary(f"/{SERVICE}/Unary")(fault, metadata=bearer))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)
    (line,) = lines
    assert line["event"] == "call.failed"
    assert line["correlation_id"] in error.details()
    assert "secret" in str(line["exc_info"])


async def test_an_error_in_the_middle_of_a_stream(channel, bearer):
    stream = channel.unary_stream(f"/{SERVICE}/Many")(b"not-found", metadata=bearer)
    assert await stream.read() == b"first"
    assert (await refusal(stream.read())).code() is grpc.StatusCode.NOT_FOUND


async def test_a_handler_may_end_a_call_itself(channel, bearer):
    error = await refusal(channel.unary_unary(f"/{SERVICE}/Abort")(b"", metadata=bearer))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "by hand")


async def test_a_method_that_does_not_exist(channel, bearer):
    error = await refusal(channel.unary_unary(f"/{SERVICE}/Nothing")(b"", metadata=bearer))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_where_a_call_came_from(channel, bearer):
    metadata = [*bearer, ("x-uhm-client-address", "192.0.2.7"), ("x-uhm-user-agent", "curl/8" + "x" * 1000)]
    answer = await channel.unary_unary(f"/{SERVICE}/WhereFrom")(b"", metadata=metadata)
    request_id, address, user_agent = answer.decode().split(" ")
    assert (request_id, address, user_agent) == ("r-1", "192.0.2.7", "curl/8" + "x" * 194)


async def test_a_method_that_does_not_say_who_may_call_it_is_refused_to_all(channel, signer):
    metadata = [("authorization", f"Bearer {signer.token(role='admin')}")]
    error = await refusal(channel.unary_unary(f"/{SERVICE}/Unsaid")(b"public", metadata=metadata))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


OK = grpc.StatusCode.OK
DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("method", "caller", "code"),
    [
        ("Unary", "user", OK),
        ("Closed", "user", OK),
        ("Rule", "user", DENIED),
        ("Rule", "admin", OK),
        ("Unary", {"echoes.read"}, OK),
        ("Unary", {"echoes.write"}, OK),
        ("Unary", {"images.read", "images.write"}, DENIED),
        ("Unary", {"echoes"}, DENIED),
        ("Unary", set(), DENIED),
        ("Closed", {"echoes.write", ""}, DENIED),
        ("Rule", {"users.write"}, DENIED),
        ("Rule", {"users.write", "of an admin"}, OK),
        ("Rule", {"users.read", "of an admin"}, DENIED),
    ],
    ids=str,
)
async def test_who_may_call_what(channel, signer, api_keys, method, caller, code):
    if isinstance(caller, str):
        token = signer.token(role=caller)
    else:
        token, api_keys.scopes = API_KEY, frozenset(caller)
        api_keys.role = "admin" if "of an admin" in caller else "user"
    call = channel.unary_unary(f"/{SERVICE}/{method}")(b"", metadata=[("authorization", f"Bearer {token}")])
    with suppress(grpc.aio.AioRpcError):
        await call
    assert await call.code() is code


async def test_who_is_told_of_a_refusal(verifier, serving, signer):
    told = []

    async def on_denied(method, identity):
        told.append((method, identity.username))

    async with serving(add, interceptors=[Boundary(verifier=verifier, on_denied=on_denied)]) as channel:
        await refusal(
            channel.unary_unary(f"/{SERVICE}/Rule")(b"", metadata=[("authorization", f"Bearer {signer.token()}")])
        )
    assert told == [(f"/{SERVICE}/Rule", "ann")]


@pytest.mark.parametrize("method", ["Unary", "Public", "Rule"])
async def test_an_idempotency_key_that_would_do_nothing_is_refused(channel, bearer, method):
    metadata = [*bearer, ("idempotency-key", "k")]
    error = await refusal(channel.unary_unary(f"/{SERVICE}/{method}")(b"public", metadata=metadata))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "without" in error.details()
    stream = channel.unary_stream(f"/{SERVICE}/Many")(b"public", metadata=metadata)
    assert (await refusal(stream.read())).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await channel.unary_unary(f"/{SERVICE}/Once")(b"", metadata=metadata) == b"ann"


async def test_a_refusal_is_one_although_it_cannot_be_noted(verifier, serving, bearer):
    async def on_denied(_method, _identity):
        raise OperationalError("INSERT", {}, Exception("away"))

    async with serving(add, interceptors=[Boundary(verifier=verifier, on_denied=on_denied)]) as channel:
        error = await refusal(channel.unary_unary(f"/{SERVICE}/Rule")(b"", metadata=bearer))
    assert error.code() is DENIED


def revoke(verifier, *names) -> None:
    verifier.revocations.add(Revocation(id=name, expires_at=time.time() + 60) for name in names)


async def one(item):
    yield item
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "begin",
    [
        lambda channel, metadata: channel.unary_stream(f"/{SERVICE}/Forever")(b"", metadata=metadata),
        lambda channel, metadata: channel.stream_stream(f"/{SERVICE}/Converse")(one(b"first"), metadata=metadata),
    ],
    ids=["of answers", "both ways"],
)
@pytest.mark.parametrize("revoked", ["s1", "k1"], ids=["session", "API key"])
async def test_a_running_stream_ends_when_its_session_is_revoked(channel, verifier, signer, begin, revoked):
    token = {"s1": signer.token(), "k1": API_KEY}[revoked]
    stream = begin(channel, [("authorization", f"Bearer {token}")])
    other = begin(channel, [("authorization", f"Bearer {signer.token(sid='s2')}")])
    assert [await stream.read(), await other.read()] == [b"first", b"first"]

    revoke(verifier, revoked)

    error = await refusal(stream.read())
    assert (error.code(), "was ended" in error.details()) == (grpc.StatusCode.UNAUTHENTICATED, True)
    assert not other.done()
    other.cancel()


async def test_a_running_stream_ends_when_its_api_key_expires(channel, api_keys):
    api_keys.expires_at = int(time.time()) + 1
    stream = channel.unary_stream(f"/{SERVICE}/Forever")(b"", metadata=[("authorization", f"Bearer {API_KEY}")])
    assert await stream.read() == b"first"
    assert (await refusal(stream.read())).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_upload_ends_when_its_session_is_revoked(channel, verifier, bearer):
    call = channel.stream_unary(f"/{SERVICE}/Listen")(one(b"first"), metadata=bearer)
    await call.wait_for_connection()
    while not verifier.revocations.running("s1"):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)

    revoke(verifier, "s1")

    assert (await refusal(call)).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_that_nobody_reads_ends_too(channel, verifier, bearer):
    """Its sender waits for the client to take what it was sent."""
    stream = channel.unary_stream(f"/{SERVICE}/Flood")(b"", metadata=bearer)
    assert await stream.read()
    while not verifier.revocations.running("s1"):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)

    flooded.clear()
    revoke(verifier, "s1")

    async with asyncio.timeout(30):
        await flooded.wait()
        assert (await refusal(drain(stream))).code() is grpc.StatusCode.UNAUTHENTICATED


async def drain(stream) -> None:
    while await stream.read():
        pass
