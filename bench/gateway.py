"""What the gateway adds to a call, how many requests it answers, and what a token's verification takes.

    python -m bench.gateway [CALLS]

All of one run, each beside its peer and in turns with it: a unary call straight to its service, through the forwarder
and through REST, one after another over kept connections; requests a second of REST, on many connections, and of a bare
Starlette application that answers the same JSON in one process.

The service behind the calls is this project's kind, grpc.aio in Python; behind the requests it is SeaweedFS's master,
in Go, which shares the processor with the gateway it answers, as the client does. The application asks nobody. It runs
under the gateway's own server, uvicorn with the HTTP protocol of `slow_clients`, which sends each answer in one piece
and is faster for it than uvicorn's own; that one is shown, too. Ends with 1 where a target is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.gateway_servers import (
    CONFIGURATION,
    SERVICE,
    bare_application,
    gateway,
    python_service,
    seaweed_master,
    seaweed_set,
)
from bench.http_load import requests_per_second
from uhm_common.callers.verifier import ACCESS, TYPES, TokenVerifier
from uhm_gateway.upstream.lane import Lane
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

BODY = b'{"username": "ada", "password": "correct horse"}'
WARM_UP = 200
ROUNDS = 10
CONNECTIONS = 64


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured against what is aimed at: at least `least`, or at most `most`."""

    name: str
    value: float
    unit: str = ""
    least: float = 0.0
    most: float = float("inf")

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        target = f"at least {self.least}" if self.least else f"at most {self.most}"
        verdict = "met" if self.met else "MISSED"
        return f"{self.name:58} {self.value:9.3f} {self.unit:3} target {target} {self.unit:3} {verdict}"


class RestCall:
    """One request after another over one connection."""

    async def connect(self, port: int) -> None:
        """Opens the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)

    async def __call__(self) -> None:
        """One request and its whole answer."""
        head = f"POST /api/v1/user/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self._writer.write(head.encode() + BODY)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))


async def added(calls: int) -> list[Figure]:
    """What the two ways through the gateway add to a call, each against the same kind of client without it.

    A client of grpc.aio costs more than a bare socket's. What REST adds to a call over one is therefore told against a
    lane's, the lightest client of gRPC there is here; what forwarding adds, against grpc.aio's.
    """
    request = auth_pb2.CreateUserRequest(username="ada", password="correct horse")
    with python_service() as port, gateway({SERVICE: port}) as ports:
        rest = RestCall()
        await rest.connect(ports["rest"])
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as straight,
            grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}") as forwarded,
            _lane_to(port) as lane,
        ):
            by_channel = auth_pb2_grpc.AuthServiceStub(straight).CreateUser
            medians = await _medians(
                {
                    "straight, grpc.aio": partial(by_channel, request),
                    "forwarded, grpc.aio": partial(auth_pb2_grpc.AuthServiceStub(forwarded).CreateUser, request),
                    "straight, lane": partial(_by_lane(lane, by_channel), request),
                    "REST, socket": rest,
                },
                calls,
            )
    for name, median in medians.items():
        print(f"{name:58} {median:9.3f} ms")
    by_rest = medians["REST, socket"] - medians["straight, lane"]
    by_forwarder = medians["forwarded, grpc.aio"] - medians["straight, grpc.aio"]
    return [
        Figure(name="REST adds, p50", value=by_rest, unit="ms", most=1.0),
        Figure(name="gRPC forwarding adds, p50", value=by_forwarder, unit="ms", most=0.5),
    ]


@contextlib.asynccontextmanager
async def _lane_to(port: int) -> AsyncIterator[Lane]:
    """A lane that is up."""
    lane = Lane(f"127.0.0.1:{port}", message_limit=1 << 20)
    async with asyncio.timeout(10):
        while not lane.is_up:
            lane.connect()
            await asyncio.sleep(0.01)
    try:
        yield lane
    finally:
        await lane.close()


def _by_lane(lane: Lane, by_channel: Callable[..., Any]) -> Callable[..., Any]:
    return lane.unary_unary(
        f"/{SERVICE}/CreateUser",
        request_serializer=auth_pb2.CreateUserRequest.SerializeToString,
        response_deserializer=auth_pb2.CreateUserResponse.FromString,
        otherwise=by_channel,
    )


async def _medians(ways: dict[str, Callable[[], Awaitable[object]]], calls: int) -> dict[str, float]:
    """Medians in milliseconds; the ways take turns, so that what else the machine does meets them all."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        for _ in range(WARM_UP):
            await call()
    for _ in range(ROUNDS):
        for name, call in ways.items():
            for _ in range(calls // ROUNDS):
                started = time.perf_counter()
                await call()
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) * 1000 for name, seconds in taken.items()}


def throughput(calls: int) -> list[Figure]:
    """How many requests a second REST answers, against the bare application."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        routes = seaweed_set(directory)
        with (
            seaweed_master(directory) as service,
            gateway({"master_pb.Seaweed": service}, descriptor_set=routes) as ports,
        ):
            answer = httpx.get(f"http://127.0.0.1:{ports['rest']}{CONFIGURATION}", trust_env=False).raise_for_status()
            with (
                bare_application(answer.content) as bare,
                bare_application(answer.content, protocol="uvicorn") as plain,
            ):
                ports_by_name = {"REST": ports["rest"], "bare Starlette": bare, "bare, uvicorn's protocol": plain}
                rates = _in_turns(ports_by_name, calls)
    for name, found in rates.items():
        print(f"{name:58} {statistics.median(found):9.0f} /s")
    ratio = statistics.median(
        mine / theirs for mine, theirs in zip(rates["REST"], rates["bare Starlette"], strict=True)
    )
    return [Figure(name="requests a second, REST over bare Starlette", value=ratio, unit="x", least=0.4)]


def _in_turns(ports: dict[str, int], calls: int) -> dict[str, list[float]]:
    """Requests a second of each port, in every round."""
    request = f"GET {CONFIGURATION} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    rate = partial(requests_per_second, request=request, count=calls, connections=CONNECTIONS)
    for port in ports.values():
        rate(port)  # to warm up
    rounds = [{name: rate(port) for name, port in ports.items()} for _ in range(ROUNDS)]
    return {name: [each[name] for each in rounds] for name in ports}


async def verification(calls: int) -> list[Figure]:
    """What it takes to verify a token, for the first time and again."""
    private = Ed25519PrivateKey.generate()
    key = jwt.PyJWK({**jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True), "alg": "EdDSA"})

    class Keys:
        async def key(self, _key_id: str) -> jwt.PyJWK:
            return key

    now = int(time.time())
    names = {"iss": "bench", "aud": "bench", "sub": "ada", "identity": "ada", "jti": "1", "sid": "1"}
    claims = {**names, "iat": now, "nbf": now, "exp": now + 3600, "type": ACCESS, "fresh": False, "role": "user"}
    token = jwt.encode(claims, private, algorithm="EdDSA", headers={"kid": "k", "typ": TYPES[ACCESS]})
    verifier = TokenVerifier(Keys(), issuer="bench", audience="bench")
    metadata = {"authorization": f"Bearer {token}"}
    medians = await _medians(
        {"first": partial(verifier.claims, token, kind=ACCESS), "again": partial(verifier.identity, metadata)}, calls
    )
    return [
        Figure(name="verification of a new token, p50", value=medians["first"] * 1000, unit="µs", most=100),
        Figure(name="verification of a token seen before, p50", value=medians["again"] * 1000, unit="µs", most=100),
    ]


async def main() -> int:
    """Measures and prints; answers the exit code."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    figures = [*await added(calls), *throughput(calls), *await verification(calls)]
    for figure in figures:
        print(figure)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
