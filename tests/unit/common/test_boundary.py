"""The interceptor, around a real gRPC server on loopback."""

from __future__ import annotations

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from uhm_common.boundary import Boundary
from uhm_common.errors import InternalError, NotFound
from uhm_common.identity import TokenVerifier, current_identity

SERVICE = "test.Echo"
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


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Public": grpc.unary_unary_rpc_method_handler(unary),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Abort": grpc.unary_unary_rpc_method_handler(abort),
}


def add(server):
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
    states = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)


@pytest.fixture
async def channel(signer, serving):
    verifier = TokenVerifier(signer, issuer="test-issuer", audience="test-audience")
    boundary = Boundary(verifier=verifier, public=[f"/{SERVICE}/Public"])
    async with serving(add, interceptors=[boundary]) as channel:
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
    assert [(line["event"], line["code"]) for line in lines] == [("call.refused", "NOT_FOUND")]


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
