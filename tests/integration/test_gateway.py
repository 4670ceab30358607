"""The gateway as a process, in front of real gRPC servers of an API that it has never seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import statistics
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

from uhm_gateway.descriptors import Api, load_api
from uhm_gateway.endpoint import OPENING_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# One gateway serves all tests that leave it running: to start one takes longer than most of them.
pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PROTO = """
syntax = "proto3";
package echo.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";

service EchoService {
  rpc Say(Words) returns (Words) {
    option (google.api.http) = { post: "/v1/say" body: "*" additional_bindings { get: "/v1/say/{text}" } };
  }
  rpc Fail(Words) returns (Words) { option (google.api.http) = { get: "/v1/fail/{count}" }; }
  rpc Count(Words) returns (stream Words) { option (google.api.http) = { get: "/v1/count/{count}" }; }
  rpc Join(stream Words) returns (Words) { option (google.api.http) = { post: "/v1/join" body: "*" }; }
  rpc Chat(stream Words) returns (stream Words) { option (google.api.http) = { post: "/v1/chat" body: "*" }; }
  rpc Upload(stream Piece) returns (Words) { option (google.api.http) = { post: "/v1/upload/{name}" body: "body" }; }
  rpc Download(Words) returns (stream google.api.HttpBody) { option (google.api.http) = { get: "/v1/download" }; }
  rpc Hang(Words) returns (Words) { option (google.api.http) = { get: "/v1/hang" }; }
  rpc HangStream(Words) returns (stream Words) { option (google.api.http) = { get: "/v1/hang:stream" }; }
  rpc Unbound(Words) returns (Words);
}
service LostService {
  rpc Say(Words) returns (Words) { option (google.api.http) = { get: "/v1/lost" }; }
}
message Words { string text = 1; int64 count = 2; }
message Piece { google.api.HttpBody body = 1; string name = 2; }
"""
SERVICE = "echo.v1.EchoService"
BUF = str(Path(sys.executable).parent / "buf")


class Echo:
    """The upstream: every kind of method, and a record of what became of its calls."""

    def __init__(self, api: Api) -> None:
        self._methods = {method.name: method for method in api.services[0].methods}
        self.words: Any = self._methods["Say"].input_type
        self.body: Any = self._methods["Download"].output_type
        self.forget()

    def forget(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.time_left: float | None = None
        self.cancelled = asyncio.Event()
        self.hanging = asyncio.Event()
        self.taking = asyncio.Event()
        self.taken: list[int] = []
        self.content_types: list[str] = []

    def handler(self) -> Any:
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: self._handler(name) for name in self._methods if hasattr(self, name.lower())}
        )

    def _handler(self, name: str) -> Any:
        method = self._methods[name]
        kinds = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        return getattr(grpc, "_".join(kinds) + "_rpc_method_handler")(
            getattr(self, name.lower()),
            request_deserializer=method.input_type.FromString,
            response_serializer=method.output_type.SerializeToString,
        )

    async def say(self, request: Any, context: Any) -> Any:
        self.metadata = dict(context.invocation_metadata())
        self.time_left = context.time_remaining()
        await context.send_initial_metadata((("greeting", "hello"), ("raw-bin", b"\x00\xff")))
        context.set_trailing_metadata((("farewell", "bye"),))
        return request

    unbound = say

    async def fail(self, request: Any, context: Any) -> Any:
        code = next(code for code in grpc.StatusCode if code.value[0] == request.count)
        if code is not grpc.StatusCode.UNAVAILABLE:
            await context.abort(code, f"no: {code.name}", (("farewell", "bye"),))
        delay = any_pb2.Any()
        delay.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=6, nanos=1)))
        unknown = any_pb2.Any(type_url="type.googleapis.com/not.Known", value=b"\x01")
        status = status_pb2.Status(code=14, message="later", details=[delay, unknown])
        await context.abort_with_status(rpc_status.to_status(status))

    async def count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.count < 0:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "below zero")
        for number in range(request.count):
            yield self.words(count=number)
        if request.text == "fail":
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost count")

    async def join(self, requests: Any, _context: Any) -> Any:
        texts = [request.text async for request in requests]
        return self.words(text=" ".join(texts), count=len(texts))

    async def chat(self, requests: Any, _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield self.words(text=request.text.upper())

    async def upload(self, requests: Any, context: Any) -> Any:
        name = ""
        try:
            async for request in requests:
                if request.name == "refused":
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
                name = name or request.name
                self.content_types.append(request.body.content_type)
                self.taken.append(len(request.body.data))
                if name == "slow":
                    await self.taking.wait()
            # grpc.aio ends the iteration of a cancelled call first, and cancels the handler then.
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.words(text=name, count=sum(self.taken))

    async def download(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.text == "fail late":
            await asyncio.sleep(OPENING_SECONDS + 0.2)
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing to download")
        yield self.body(content_type="text/csv", data=b"a,b\n")
        yield self.body(data=b"1,2\n")

    async def hang(self, _request: Any, _context: Any) -> Any:
        self.hanging.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def hangstream(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        self.hanging.set()
        yield self.words(text="first")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class Gateway:
    """A running gateway process and clients of it."""

    def __init__(self, process: asyncio.subprocess.Process, rest_port: int, grpc_port: int) -> None:
        self.process = process
        self.rest_port = rest_port
        self.grpc_port = grpc_port
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{rest_port}", timeout=20)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}")

    async def close(self) -> None:
        await self.http.aclose()
        await self.channel.close()
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 10)


@pytest.fixture(scope="session")
def descriptor_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("echo")
    (root / "echo.proto").write_text(PROTO)
    google = files("google.api").joinpath("annotations.proto")
    result = protoc.main(
        [
            "protoc",
            f"--proto_path={root}",
            f"--proto_path={Path(str(google)).parents[2]}",
            f"--proto_path={files('grpc_tools').joinpath('_proto')}",
            f"--descriptor_set_out={root / 'echo.binpb'}",
            "--include_imports",
            "--include_source_info",
            "echo.proto",
        ]
    )
    assert result == 0
    return root / "echo.binpb"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo(descriptor_set: Path) -> AsyncIterator[tuple[Echo, int]]:
    upstream = Echo(load_api(descriptor_set))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((upstream.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield upstream, port
    await server.stop(None)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.02)


def _opened(log: Path) -> BinaryIO:
    return log.open("wb")


def _text(log: Path) -> str:
    return log.read_text()


def _ports(log: Path) -> dict[str, Any] | None:
    """The line in which the gateway says that it serves, and where."""
    lines = [line for line in log.read_text().splitlines() if '"gateway.serving"' in line]
    return json.loads(lines[0]) if lines else None


@contextlib.asynccontextmanager
async def running(*arguments: str, log: Path) -> AsyncIterator[Gateway]:
    command = (sys.executable, "-m", "uhm_gateway", "--rest-port", "0", "--grpc-port", "0", *arguments)
    with contextlib.closing(_opened(log)) as errors:
        process = await asyncio.create_subprocess_exec(*command, stderr=errors)
    await until(lambda: process.returncode is not None or _ports(log))
    ports = _ports(log)
    assert ports is not None
    gateway = Gateway(process, ports["rest"], ports["grpc"])
    try:
        yield gateway
    finally:
        await gateway.close()


@pytest.fixture(scope="module")
def arguments(echo: tuple[Echo, int], descriptor_set: Path) -> tuple[str, ...]:
    routes = ("--route", f"{SERVICE}=127.0.0.1:{echo[1]}", "--route", "echo.v1.LostService=127.0.0.1:9")
    return ("--descriptor-set", str(descriptor_set), *routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(*arguments, log=tmp_path_factory.mktemp("gateway") / "log") as front:
        yield front


@pytest.fixture
def upstream(echo: tuple[Echo, int]) -> Echo:
    echo[0].forget()
    return echo[0]


def stub(gateway: Gateway, upstream: Echo, name: str, kind: str, *, channel: Any = None) -> Any:
    method = upstream._methods[name]
    return getattr(channel or gateway.channel, kind)(
        f"/{SERVICE}/{name}",
        request_serializer=method.input_type.SerializeToString,
        response_deserializer=method.output_type.FromString,
    )


class TestRest:
    async def test_unary_with_body_and_metadata(self, gateway: Gateway, upstream: Echo) -> None:
        headers = {
            "Authorization": "Bearer abc",
            "X-Request-Id": "my-id",
            "Grpc-Timeout": "5S",
            "Grpc-Metadata-Colour": "blue",
        }
        answer = await gateway.http.post("/v1/say", json={"text": "hi", "count": "7"}, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"text": "hi", "count": "7"})
        assert answer.headers["x-request-id"] == "my-id"
        assert answer.headers["grpc-metadata-greeting"] == "hello"
        assert upstream.metadata["authorization"] == "Bearer abc"
        assert upstream.metadata["x-request-id"] == "my-id"
        assert upstream.metadata["colour"] == "blue"
        assert upstream.time_left is not None
        assert 3 < upstream.time_left < 5.5  # grpc rounds up what it sends

    async def test_path_and_query(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/say/a%2Fb%20c?count=-3")
        assert answer.json() == {"text": "a/b c", "count": "-3"}

    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            (None, 200),
            ("application/x-www-form-urlencoded", 200),
            ("application/vnd.x+json; charset=utf-8", 200),
            ("text/xml", 415),
        ],
    )
    async def test_content_types(self, gateway: Gateway, content_type: str | None, status: int) -> None:
        headers = {"content-type": content_type} if content_type else {}
        answer = await gateway.http.post("/v1/say", content=b'{"text":"x"}', headers=headers)
        assert answer.status_code == status, answer.text

    async def test_an_absent_body_is_an_empty_message(self, gateway: Gateway) -> None:
        assert (await gateway.http.post("/v1/say")).json() == {"text": "", "count": "0"}

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "mentions"),
        [
            ("GET", "/v1/nowhere", b"", 404, "/v1/nowhere"),
            ("DELETE", "/v1/say", b"", 405, "POST"),
            ("POST", "/v1/say", b'{"text":', 400, "column 9"),
            ("POST", "/v1/say", b'{"txt": 1}', 400, "txt"),
            ("POST", "/v1/say", b'{"count": "x"}', 400, "count"),
            ("GET", "/v1/say/x?colour=blue", b"", 400, "colour"),
            ("GET", "/v1/say/x?count=blue", b"", 400, "count"),
            ("GET", "/v1/fail/abc", b"", 400, "count"),
            ("POST", "/v1/say", b'{"text": "' + b"x" * (9 << 20) + b'"}', 413, "larger"),
        ],
    )
    async def test_refusals(
        self, gateway: Gateway, method: str, path: str, body: bytes, status: int, mentions: str
    ) -> None:
        answer = await gateway.http.request(method, path, content=body)
        assert answer.status_code == status
        assert mentions in answer.json()["message"]
        assert set(answer.json()) == {"code", "message", "details"}

    @pytest.mark.parametrize(
        ("code", "status"), [(5, 404), (7, 403), (16, 401), (8, 429), (3, 400), (6, 409), (12, 501)]
    )
    async def test_upstream_errors(self, gateway: Gateway, code: int, status: int) -> None:
        answer = await gateway.http.get(f"/v1/fail/{code}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["message"].startswith("no: ")
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert ("retry-after" in answer.headers) == (status == 429)

    async def test_error_details(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/fail/14")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "7"
        assert answer.json() == {
            "code": 14,
            "message": "later",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "6.000000001s"},
                {"@type": "type.googleapis.com/not.Known", "value": "AQ=="},
            ],
        }

    async def test_an_upstream_that_is_down(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/lost")
        assert answer.status_code == 503
        assert "echo.v1.LostService" in answer.json()["message"]
        assert "not answering" in answer.json()["message"]

    async def test_server_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/2")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines == [{"result": {"text": "", "count": str(number)}} for number in range(2)]

    async def test_an_error_ends_a_stream_as_its_last_line(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/1?text=fail")
        last = json.loads(answer.text.splitlines()[-1])
        assert answer.status_code == 200
        assert last == {"error": {"code": 15, "message": "lost count", "details": []}}

    async def test_a_stream_that_fails_at_once_has_the_errors_status(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/-1")
        assert (answer.status_code, answer.json()["code"]) == (400, 11)

    async def test_an_empty_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/0")
        assert (answer.status_code, answer.text) == (200, "")

    async def test_messages_are_flushed_one_by_one(self, gateway: Gateway) -> None:
        async with gateway.http.stream("GET", "/v1/hang:stream") as answer:
            async with asyncio.timeout(5):
                line = await anext(answer.aiter_lines())
        assert json.loads(line) == {"result": {"text": "first", "count": "0"}}

    async def test_client_stream_of_json(self, gateway: Gateway) -> None:
        body = b'{"text":"a"}\n{"text":"b"}{\n "text": "c}\\""\n}'
        answer = await gateway.http.post("/v1/join", content=body)
        assert answer.json() == {"text": 'a b c}"', "count": "3"}

    async def test_a_broken_message_in_a_client_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/v1/join", content=b'{"text":"a"}\n{"txt":"b"}')
        assert (answer.status_code, "txt" in answer.text) == (400, True)

    async def test_bidirectional_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/v1/chat", content=b'{"text":"a"}\n{"text":"b"}\n')
        assert [json.loads(line)["result"]["text"] for line in answer.text.splitlines()] == ["A", "B"]

    async def test_raw_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/download")
        assert answer.headers["content-type"] == "text/csv"
        assert answer.content == b"a,b\n1,2\n"

    async def test_a_raw_stream_that_fails_late_has_the_status_of_its_error(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/download", params={"text": "fail late"})
        assert (answer.status_code, answer.json()["message"]) == (404, "nothing to download")

    async def test_deadline(self, gateway: Gateway, upstream: Echo) -> None:
        answer = await gateway.http.get("/v1/hang", headers={"Grpc-Timeout": "200m"})
        assert (answer.status_code, answer.json()["code"]) == (504, 4)
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    @pytest.mark.parametrize("path", ["/v1/hang", "/v1/hang:stream"])
    async def test_a_client_that_leaves_cancels_the_call(self, gateway: Gateway, upstream: Echo, path: str) -> None:
        async def request() -> None:
            async with gateway.http.stream("GET", path) as answer:
                await answer.aread()

        task = asyncio.create_task(request())
        await asyncio.wait_for(upstream.hanging.wait(), 5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    async def test_answers_do_not_wait_for_acknowledgements(self, gateway: Gateway) -> None:
        """With Nagle's algorithm on, every answer on a kept connection takes 40 ms."""
        taken = []
        for _ in range(11):
            started = time.perf_counter()
            await gateway.http.get("/v1/say/x")
            taken.append(time.perf_counter() - started)
        assert statistics.median(taken) < 0.035

    async def test_methods_without_a_binding_have_no_path(self, gateway: Gateway) -> None:
        assert (await gateway.http.post(f"/{SERVICE}/Unbound")).status_code == 404


class TestUpload:
    async def test_pieces(self, gateway: Gateway, upstream: Echo) -> None:
        size = 20 << 20
        answer = await gateway.http.post(
            "/v1/upload/big", content=b"x" * size, headers={"content-type": "application/x-tar"}
        )
        assert answer.json() == {"text": "big", "count": str(size)}
        assert max(upstream.taken) <= 1 << 20
        assert upstream.content_types[0] == "application/x-tar"
        assert set(upstream.content_types[1:]) == {""}

    async def test_an_empty_upload_is_one_message(self, gateway: Gateway, upstream: Echo) -> None:
        answer = await gateway.http.post("/v1/upload/none", content=b"")
        assert answer.json() == {"text": "none", "count": "0"}
        assert upstream.taken == [0]

    async def test_back_pressure(self, gateway: Gateway, upstream: Echo) -> None:
        """While the upstream takes nothing, the client cannot send more than what buffers on the way hold."""
        sent = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(256):
                yield b"x" * (256 << 10)
                sent += 256 << 10

        task = asyncio.create_task(gateway.http.post("/v1/upload/slow", content=pieces()))
        async with asyncio.timeout(10):
            before = -1
            while sent != before or not upstream.taken:
                before = sent
                await asyncio.sleep(0.5)
        assert sent < 24 << 20
        assert _resident_bytes(gateway.process.pid) < 200 << 20
        upstream.taking.set()
        assert (await task).json()["count"] == str(64 << 20)

    async def test_an_early_refusal_is_heard(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/v1/upload/refused", content=b"x" * (3 << 20))
        assert (answer.status_code, answer.json()["message"]) == (403, "not yours")

    async def test_a_cut_off_upload_is_cancelled_and_not_ended(self, gateway: Gateway, upstream: Echo) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.rest_port)
        writer.write(b"POST /v1/upload/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        await writer.drain()
        await until(lambda: upstream.taken)
        writer.close()
        await asyncio.wait_for(upstream.cancelled.wait(), 5)
        assert reader is not None


class TestGrpc:
    async def test_unary(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Unbound", "unary_unary")(
            upstream.words(text="x"), metadata=(("colour", "blue"), ("raw-bin", b"\xff")), timeout=5
        )
        assert (await call).text == "x"
        assert dict(await call.initial_metadata())["raw-bin"] == b"\x00\xff"
        assert dict(await call.trailing_metadata())["farewell"] == "bye"
        assert (upstream.metadata["colour"], upstream.metadata["raw-bin"]) == ("blue", b"\xff")
        assert upstream.time_left is not None
        assert 3 < upstream.time_left < 5.5  # grpc rounds up what it sends

    async def test_streams(self, gateway: Gateway, upstream: Echo) -> None:
        async def words() -> AsyncIterator[Any]:
            for text in ("a", "b"):
                yield upstream.words(text=text)

        counted = [m.count async for m in stub(gateway, upstream, "Count", "unary_stream")(upstream.words(count=3))]
        assert counted == [0, 1, 2]
        assert (await stub(gateway, upstream, "Join", "stream_unary")(words())).text == "a b"
        assert [m.text async for m in stub(gateway, upstream, "Chat", "stream_stream")(words())] == ["A", "B"]

    async def test_a_conversation(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Chat", "stream_stream")()
        for text in ("a", "b", "c"):
            await call.write(upstream.words(text=text))
            assert (await call.read()).text == text.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def test_errors_with_details(self, gateway: Gateway, upstream: Echo) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(gateway, upstream, "Fail", "unary_unary")(upstream.words(count=14))
        trailers = dict(caught.value.trailing_metadata())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        assert (caught.value.details(), len(status.details)) == ("later", 2)

    async def test_an_error_after_messages(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Count", "unary_stream")(upstream.words(count=2, text="fail"))
        assert [(await call.read()).count for _ in range(2)] == [0, 1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS

    async def test_a_cancelled_upload_is_not_passed_off_as_ended(self, gateway: Gateway, upstream: Echo) -> None:
        piece = upstream._methods["Upload"].input_type
        for _ in range(5):
            upstream.cancelled.clear()
            upstream.taken.clear()
            call = stub(gateway, upstream, "Upload", "stream_unary")()
            await call.write(piece(name="cut"))
            await until(lambda: upstream.taken)
            call.cancel()
            await asyncio.wait_for(upstream.cancelled.wait(), 5)

    async def test_a_refusal_in_the_middle_of_an_upload(self, gateway: Gateway, upstream: Echo) -> None:
        """With grpcio's blocking client: its other one forgets the status where a write fails at the same moment."""
        piece = upstream._methods["Upload"].input_type(name="refused", body=upstream.body(data=b"x" * 65536))
        with grpc.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            upload = stub(gateway, upstream, "Upload", "stream_unary", channel=channel)
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(upload, iter([piece] * 200))
        assert caught.value.details() == "not yours"

    async def test_deadline_and_cancellation(self, gateway: Gateway, upstream: Echo) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(gateway, upstream, "Hang", "unary_unary")(upstream.words(), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(upstream.cancelled.wait(), 5)
        upstream.cancelled.clear()
        call = stub(gateway, upstream, "HangStream", "unary_stream")(upstream.words())
        assert (await call.read()).text == "first"
        call.cancel()
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    @pytest.mark.parametrize(
        ("method", "code"),
        [
            ("/echo.v1.LostService/Say", grpc.StatusCode.UNAVAILABLE),
            ("/echo.v1.EchoService/Nothing", grpc.StatusCode.UNIMPLEMENTED),
            ("/other.v1.Service/Say", grpc.StatusCode.UNIMPLEMENTED),
        ],
    )
    async def test_what_is_not_there(self, gateway: Gateway, method: str, code: grpc.StatusCode) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.channel.unary_unary(method)(b"")
        assert caught.value.code() is code

    async def test_health(self, gateway: Gateway) -> None:
        health = health_pb2_grpc.HealthStub(gateway.channel)
        expected = {SERVICE: "SERVING", "echo.v1.LostService": "NOT_SERVING", "": "NOT_SERVING"}
        for service, state in expected.items():
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == state
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()

    async def test_buf_curl_finds_its_way_by_reflection(self, gateway: Gateway) -> None:
        address = f"http://127.0.0.1:{gateway.grpc_port}"
        listed = await _buf_curl(address, "--list-services")
        assert {SERVICE, "echo.v1.LostService", "grpc.health.v1.Health"} <= set(listed.split())
        answer = await _buf_curl(f"{address}/{SERVICE}/Say", "-d", '{"text": "hello"}')
        assert json.loads(answer) == {"text": "hello"}


class TestProcess:
    async def test_pages(self, gateway: Gateway) -> None:
        text = (await gateway.http.get("/")).text
        page = await gateway.http.get("/", headers={"accept": "text/html"})
        assert "/v1/say/{text}" in text
        assert "<html" not in text
        assert page.headers["content-type"].startswith("text/html")
        assert "EchoService" in page.text
        assert (await gateway.http.get("/healthz")).json() == {"status": "ok"}
        ready = await gateway.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["services"] == {SERVICE: "serving", "echo.v1.LostService": "not serving"}

    async def test_sigterm_ends_streams_and_the_process(self, arguments: tuple[str, ...], tmp_path: Path) -> None:
        async with running(*arguments, log=tmp_path / "log") as gateway:
            async with gateway.http.stream("GET", "/v1/hang:stream") as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                gateway.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(5):
                    assert json.loads(await anext(lines))["error"]["code"] == 14
            assert await asyncio.wait_for(gateway.process.wait(), 6) == 0

    async def test_sigterm_lets_calls_end_for_a_while(
        self, arguments: tuple[str, ...], upstream: Echo, tmp_path: Path
    ) -> None:
        async with running(*arguments, log=tmp_path / "log") as gateway:
            call = asyncio.create_task(gateway.http.get("/v1/hang"))
            await until(upstream.hanging.is_set)
            gateway.process.send_signal(signal.SIGTERM)
            answer = await asyncio.wait_for(call, 6)
            assert (answer.status_code, answer.json()["code"]) == (503, 14)
            assert await asyncio.wait_for(gateway.process.wait(), 6) == 0
        assert "Traceback" not in _text(tmp_path / "log")

    async def test_a_port_in_use_is_one_line(self, gateway: Gateway, descriptor_set: Path) -> None:
        for option, port in (("--rest-port", gateway.rest_port), ("--grpc-port", gateway.grpc_port)):
            other = "--grpc-port" if option == "--rest-port" else "--rest-port"
            code, errors = await _failing_start(descriptor_set, option, str(port), other, "0")
            assert code == 1
            assert errors.count("\n") == 1
            assert f"127.0.0.1:{port}" in errors

    async def test_a_descriptor_set_that_is_not_there(self, tmp_path: Path) -> None:
        code, errors = await _failing_start(tmp_path / "none.binpb")
        assert (code, "none.binpb" in errors, errors.count("\n")) == (1, True, 1)


async def _failing_start(descriptor_set: Path, *arguments: str) -> tuple[int, str]:
    command = ("--descriptor-set", str(descriptor_set), "--route", f"{SERVICE}=127.0.0.1:9", *arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uhm_gateway", *command, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def _buf_curl(*arguments: str) -> str:
    command = (BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
