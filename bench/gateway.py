"""What the gateway adds: the same unary call straight to its service, through the forwarder, and through REST.

    python bench/gateway.py [CALLS]

The service, the gateway and the client are three processes; calls go one after another over kept connections. Prints
medians in milliseconds and each way's ratio to the direct call, all of one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SERVICE = "uhmalguhm.auth.v1.AuthService"
BODY = b'{"username": "ada", "password": "correct horse"}'
WARM_UP = 200


class Registrar(auth_pb2_grpc.AuthServiceServicer):
    """Answers at once."""

    async def CreateUser(  # noqa: N802
        self, request: auth_pb2.CreateUserRequest, _context: object
    ) -> auth_pb2.CreateUserResponse:
        """Registers nobody."""
        return auth_pb2.CreateUserResponse(status="registered", username=request.username)


async def serve() -> None:
    """The service's process; its port goes to standard output."""
    server = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(Registrar(), server)  # type: ignore[abstract] # only one method is called
    sys.stdout.write(f"{server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    await server.start()
    await server.wait_for_termination()


class RestClient:
    """The least that speaks HTTP/1.1, so that the gateway is measured and not a client library."""

    async def connect(self, port: int) -> None:
        """Opens the connection that all calls use."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)

    async def call(self) -> None:
        """One request and its whole answer."""
        head = f"POST /api/v1/user/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self._writer.write(head.encode() + BODY)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))


@contextlib.asynccontextmanager
async def gateway(upstream: int) -> AsyncIterator[dict[str, int]]:
    """The gateway's process, and its ports."""
    route = f"{SERVICE}=127.0.0.1:{upstream}"
    command = (sys.executable, "-m", "uhm_gateway", "--rest-port", "0", "--grpc-port", "0", "--route", route)
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(*command, stderr=log)
        try:
            while not (line := _line_with(log, b'"gateway.serving"')):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
            yield json.loads(line)
        finally:
            process.terminate()
            await process.wait()


def _line_with(log: object, mark: bytes) -> bytes:
    log.seek(0)  # type: ignore[attr-defined]
    return next((line for line in log.read().splitlines() if mark in line), b"")  # type: ignore[attr-defined]


async def median_ms(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """The median of `calls` calls, after some that do not count."""
    for _ in range(WARM_UP):
        await call()
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


async def measure(upstream: int, calls: int) -> dict[str, float]:
    """Medians by way."""
    request = auth_pb2.CreateUserRequest(username="ada", password="correct horse")
    async with gateway(upstream) as ports:
        rest = RestClient()
        await rest.connect(ports["rest"])
        medians = {}
        for name, port in (("grpc direct", upstream), ("grpc forwarded", ports["grpc"])):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = auth_pb2_grpc.AuthServiceStub(channel)
                medians[name] = await median_ms(partial(stub.CreateUser, request), calls)
        medians["rest"] = await median_ms(rest.call, calls)
        return medians


def main() -> None:
    """Measures and prints."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    service = subprocess.Popen([sys.executable, str(Path(__file__)), "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        medians = asyncio.run(measure(int(service.stdout.readline()), calls))
    finally:
        service.terminate()
        service.wait()
    for name, median in medians.items():
        sys.stdout.write(f"{name:16} {median:7.3f} ms  {median / medians['grpc direct']:5.2f}x\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(serve())
    else:
        main()
