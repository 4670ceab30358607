"""The processes that `bench/gateway.py` measures: services, gateways before them, and the bare application.

Calls one after another go to a service in Python, as this system's are. Where requests are counted it would be the
slowest part by far, so that there the service is SeaweedFS's master, a gRPC server in Go that the tests have anyway. It
answers with its own configuration, 224 bytes of JSON, and with an id for each request in its trailing metadata, which
the gateway passes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import grpc
import httpx
import uvicorn
from grpc_tools import protoc
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from uhm_gateway.server.slow_clients import ClientLimits, Guard
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

__all__ = ["CONFIGURATION", "SERVICE", "bare_application", "gateway", "python_service", "seaweed_master", "seaweed_set"]

SERVICE = "uhmalguhm.auth.v1.AuthService"
CONFIGURATION = "/v1/configuration"
START_SECONDS = 30.0
CLIENT_LIMITS = ClientLimits(
    connections=1000,
    target_bytes=8192,
    head_bytes=65536,
    headers=100,
    head_seconds=10,
    body_seconds=30,
    write_seconds=30,
)
Protocol = Literal["gateway", "uvicorn"]
_BIN = Path(sys.executable).parent
# A part of seaweedfs/weed/pb/master.proto, with a path of our own.
_PROTO = """
syntax = "proto3";
package master_pb;
import "google/api/annotations.proto";
service Seaweed {
  rpc GetMasterConfiguration(GetMasterConfigurationRequest) returns (GetMasterConfigurationResponse) {
    option (google.api.http) = { get: "/v1/configuration" };
  }
}
message GetMasterConfigurationRequest {}
message StorageBackend { string type = 1; string id = 2; map<string, string> properties = 3; }
message GetMasterConfigurationResponse {
  string metrics_address = 1;
  uint32 metrics_interval_seconds = 2;
  repeated StorageBackend storage_backends = 3;
  string default_replication = 4;
  string leader = 5;
  uint32 volume_size_limit_m_b = 6;
  bool volume_preallocate = 7;
  string maintenance_scripts = 8;
  uint32 maintenance_sleep_minutes = 9;
}
"""


class Registrar(auth_pb2_grpc.AuthServiceServicer):
    """Answers at once."""

    async def CreateUser(  # noqa: N802
        self, request: auth_pb2.CreateUserRequest, _context: object
    ) -> auth_pb2.CreateUserResponse:
        """Registers nobody."""
        return auth_pb2.CreateUserResponse(status="registered", username=request.username)


@contextlib.contextmanager
def python_service() -> Iterator[int]:
    """The service in Python, and its port."""
    with _running([sys.executable, "-m", "bench.gateway_servers", "service"]) as log:
        yield int(_line(log, b"port=").partition(b"=")[2])


@contextlib.contextmanager
def bare_application(answer: bytes, *, protocol: Protocol = "gateway") -> Iterator[int]:
    """The application that answers this JSON, and its port; under uvicorn's HTTP protocol or the gateway's of it."""
    with _running([sys.executable, "-m", "bench.gateway_servers", protocol, answer.decode()]) as log:
        yield int(_line(log, b"port=").partition(b"=")[2])


@contextlib.contextmanager
def gateway(routes: Mapping[str, int], *, descriptor_set: Path | None = None) -> Iterator[dict[str, int]]:
    """The gateway before services at these ports, and its own ports; without a rate, which would be all it measures."""
    argv = [sys.executable, "-m", "uhm_gateway", "--rest-port", "0", "--grpc-port", "0"]
    for service, port in routes.items():
        argv += ["--route", f"{service}=127.0.0.1:{port}"]
    if descriptor_set is not None:
        argv += ["--descriptor-set", str(descriptor_set)]
    with _running(argv, UHM_RATE_PER_ADDRESS="0") as log:
        yield json.loads(_line(log, b'"gateway.serving"'))


@contextlib.contextmanager
def seaweed_master(directory: Path) -> Iterator[int]:
    """SeaweedFS's master, and its gRPC port."""
    port, grpc_port = _free_port(), _free_port()
    argv = [str(_BIN / "weed"), "-logtostderr", "master", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    with _running([*argv, f"-port={port}", f"-port.grpc={grpc_port}", f"-mdir={directory}"]):
        deadline = time.monotonic() + START_SECONDS
        while not _has_leader(port):
            if time.monotonic() > deadline:
                raise TimeoutError("SeaweedFS's master does not answer")
            time.sleep(0.1)
        yield grpc_port


def seaweed_set(directory: Path) -> Path:
    """The descriptor set with which the gateway serves it."""
    (directory / "seaweed.proto").write_text(_PROTO)
    written = directory / "seaweed.binpb"
    includes = [f"-I{directory}", f"-I{files('google.api') / '../..'}", f"-I{files('grpc_tools') / '_proto'}"]
    if protoc.main(["", *includes, "--include_imports", f"--descriptor_set_out={written}", "seaweed.proto"]):
        raise RuntimeError("protoc failed")
    return written


@contextlib.contextmanager
def _running(argv: Sequence[str], **environment: str) -> Iterator[IO[bytes]]:
    """A process and the file that it writes to."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **environment})
        try:
            yield log
        finally:
            process.terminate()
            process.wait()


def _line(log: IO[bytes], mark: bytes) -> bytes:
    """The first line with this mark, once it is there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        log.seek(0)
        for line in log.read().splitlines(keepends=True):
            if mark in line and line.endswith(b"\n"):
                return line.strip()
        time.sleep(0.05)
    log.seek(0)
    raise TimeoutError(f"no {mark.decode()} in: {log.read().decode()}")


def _has_leader(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return bool(httpx.get(f"http://127.0.0.1:{port}/dir/status", trust_env=False).is_success)
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _serve_service() -> None:
    server = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(Registrar(), server)  # type: ignore[abstract] # one method is called
    sys.stdout.write(f"port={server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    await server.start()
    await server.wait_for_termination()


def _serve_bare(answer: str, *, protocol: str) -> None:
    """A Starlette application with one route, under uvicorn as the gateway configures it."""
    content = json.loads(answer)

    async def respond(_request: Request) -> JSONResponse:
        return JSONResponse(content)

    app = Starlette(routes=[Route(CONFIGURATION, respond)])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sys.stdout.write(f"port={listener.getsockname()[1]}\n")
    sys.stdout.flush()
    http: Any = Guard(CLIENT_LIMITS).protocol if protocol == "gateway" else "httptools"
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    if sys.argv[1] == "service":
        asyncio.run(_serve_service())
    else:
        _serve_bare(sys.argv[2], protocol=sys.argv[1])
