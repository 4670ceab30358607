"""An API that the gateway has never seen, a service of it with every kind of method, and the gateway as a process.

`python -m tests.integration.echo_system DESCRIPTORS PORT` is the service as a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import grpc
import httpx
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

from uhm_gateway.mapping.descriptors import Api, load_api
from uhm_gateway.rest.endpoint import OPENING_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = ["BUF", "SERVICE", "Echo", "Gateway", "buf_curl", "compile_echo", "running", "stub", "text_of", "until"]

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
  rpc Flood(Words) returns (stream Words) { option (google.api.http) = { get: "/v1/flood" }; }
  rpc Pipe(stream Piece) returns (stream google.api.HttpBody) {
    option (google.api.http) = { post: "/v1/pipe/{name}" body: "body" };
  }
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
        self.flooded = 0
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
        initial: list[Any] = [("greeting", "hello"), ("raw-bin", b"\x00\xff")]
        if request.text == "keep":
            initial.append(("cache-control", "public, max-age=60"))
        await context.send_initial_metadata(initial)
        context.set_trailing_metadata((("farewell", "bye"),))
        return self.words(text="x" * request.count) if request.text == "make it large" else request

    unbound = say

    async def fail(self, request: Any, context: Any) -> Any:
        code = next(code for code in grpc.StatusCode if code.value[0] == request.count)
        if request.text:
            lacking = any_pb2.Any()
            lacking.Pack(error_details_pb2.ErrorInfo(reason="SCOPE", metadata={"scope": request.text}))
            status = status_pb2.Status(code=request.count, message="not enough", details=[lacking])
            await context.abort_with_status(rpc_status.to_status(status))
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

    async def chat(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        self.metadata = dict(context.invocation_metadata())
        async for request in requests:
            if request.text == "fail":
                await context.abort(grpc.StatusCode.NOT_FOUND, "nobody to talk to")
            yield self.words(text=request.text.upper())

    async def flood(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        for self.flooded in range(1, 257):
            yield self.words(text="x" * 256 * 1024)

    async def pipe(self, requests: Any, _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield self.body(data=request.name.encode() + request.body.data)

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


def compile_echo(root: Path) -> Path:
    """The descriptor set of PROTO, in a directory."""
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


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.02)


def opened(log: Path) -> BinaryIO:
    return log.open("wb")


def text_of(log: Path) -> str:
    return log.read_text()


def ports_of(log: Path) -> dict[str, Any] | None:
    """The line in which the gateway says that it serves, and where."""
    lines = [line for line in log.read_text().splitlines() if '"gateway.serving"' in line]
    return json.loads(lines[0]) if lines else None


@contextlib.asynccontextmanager
async def running(*arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Gateway]:
    """A gateway, as a process; `environment` is added to this one's."""
    command = (sys.executable, "-m", "uhm_gateway", "--rest-port", "0", "--grpc-port", "0", *arguments)
    with contextlib.closing(opened(log)) as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stderr=errors, env=os.environ | dict(environment or {})
        )
    await until(lambda: process.returncode is not None or ports_of(log))
    ports = ports_of(log)
    assert ports is not None
    gateway = Gateway(process, ports["rest"], ports["grpc"])
    try:
        yield gateway
    finally:
        await gateway.close()


def stub(gateway: Gateway, upstream: Echo, name: str, kind: str, *, channel: Any = None) -> Any:
    method = upstream._methods[name]
    return getattr(channel or gateway.channel, kind)(
        f"/{SERVICE}/{name}",
        request_serializer=method.input_type.SerializeToString,
        response_deserializer=method.output_type.FromString,
    )


async def buf_curl(*arguments: str) -> str:
    command = (BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def serve(descriptors: Path, port: int) -> None:
    """The service, until the process is ended."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Echo(load_api(descriptors)).handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
