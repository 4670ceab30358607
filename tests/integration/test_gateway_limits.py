"""The gateway at its limits: too many requests, too many calls, and clients that are slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.certificates import Authority
from tests.integration.echo_system import SERVICE, Echo, Gateway, running, stub, text_of, until
from uhm_gateway.app import KEEPALIVE, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

IMPATIENT = {
    "UHM_HEAD_TIMEOUT_SECONDS": "2",
    "UHM_BODY_TIMEOUT_SECONDS": "2",
    "UHM_WRITE_TIMEOUT_SECONDS": "2",
    "UHM_TARGET_LIMIT": "1000",
    "UHM_HEAD_LIMIT": "4000",
    "UHM_MAX_HEADERS": "20",
}
SLOW_CLIENTS = 200
FLOOD = 500
PIPELINED = 8
CHAT = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway with short timeouts and small limits, whose log has no traceback in the end."""
    log = tmp_path_factory.mktemp("impatient") / "log"
    async with running(*arguments, log=log, environment=IMPATIENT) as gateway:
        yield gateway
    assert "Traceback" not in text_of(log)


async def sent(gateway: Gateway, data: bytes, *, slowly: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Sends bytes, then others one by one, until the gateway closes: status, headers and body of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.rest_port)
    writer.write(data)

    async def trickle() -> None:
        for byte in slowly:
            await asyncio.sleep(0.1)
            writer.write(bytes((byte,)))

    trickling = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        trickling.cancel()
        writer.close()
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


@contextlib.asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of one's own, for what no HTTP client sends; all of it is over in 30 seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.rest_port, limit=1024)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()


class TestRates:
    async def test_both_ports_share_a_rate_and_say_when_to_come_back(
        self, arguments: tuple[str, ...], echo: tuple[Echo, int], tmp_path: Path
    ) -> None:
        rate = {"UHM_RATE_PER_ADDRESS": "0.1", "UHM_BURST_SECONDS": "50"}
        async with running(*arguments, log=tmp_path / "log", environment=rate) as gateway:
            for _ in range(4):
                assert (await gateway.http.get("/v1/say/x")).status_code == 200
            say = stub(gateway, echo[0], "Say", "unary_unary")
            assert (await say(echo[0].words(text="x"))).text == "x"
            refused = await gateway.http.get("/v1/say/x")
            assert (refused.status_code, refused.json()["code"]) == (429, 8)
            assert 1 <= int(refused.headers["retry-after"]) <= 10
            assert any("RetryInfo" in detail["@type"] for detail in refused.json()["details"])
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await say(echo[0].words(text="x"))
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert 1 <= _retry_info(error.value).retry_delay.seconds <= 10
            assert (await gateway.http.get("/healthz")).status_code == 200
            page = await gateway.http.get("/", headers={"x-request-id": "mine"})
            assert (page.status_code, page.headers["x-request-id"]) == (429, "mine")
            assert 1 <= int(page.headers["retry-after"]) <= 10


class TestOverload:
    async def test_what_is_over_capacity_is_refused_at_once_and_it_recovers(
        self, arguments: tuple[str, ...], echo: tuple[Echo, int], tmp_path: Path
    ) -> None:
        """Some fifty times what it takes: refusals come while those that were let in are still waiting."""
        few = {"UHM_MAX_UNARY_CALLS": "10", "UHM_SERVICE_SHARE": "1", "UHM_CALLER_SHARE": "1"}
        async with running(*arguments, log=tmp_path / "log", environment=few) as gateway:
            await gateway.http.get("/v1/say/x")
            before = _resident_bytes(gateway)
            calls = {asyncio.create_task(gateway.http.get("/v1/hang", timeout=60)) for _ in range(10)}
            await until(echo[0].hanging.is_set)
            flood = await _statuses(gateway, FLOOD)
            assert flood == {503: FLOOD}
            assert not any(call.done() for call in calls)
            refused = await gateway.http.get("/v1/say/x")
            assert (refused.status_code, refused.headers["retry-after"], refused.json()["code"]) == (503, "1", 14)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub(gateway, echo[0], "Say", "unary_unary")(echo[0].words())
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert _retry_info(error.value).retry_delay.seconds == 1
            async with gateway.http.stream("GET", "/v1/count/3") as stream:
                assert stream.status_code == 200
                await stream.aread()
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await _served(gateway, "/v1/say/x")
            assert _resident_bytes(gateway) - before < 32 << 20

    async def test_a_service_and_a_caller_have_no_more_than_their_share_of_streams(
        self, arguments: tuple[str, ...], echo: tuple[Echo, int], tmp_path: Path
    ) -> None:
        few = {"UHM_MAX_STREAMS": "6", "UHM_CALLER_SHARE": "0.5"}
        async with running(*arguments, log=tmp_path / "log", environment=few) as gateway:
            hang = stub(gateway, echo[0], "HangStream", "unary_stream")
            streams = [hang(echo[0].words()) for _ in range(3)]
            for stream in streams:
                assert (await stream.read()).text == "first"
            refused = await gateway.http.get("/v1/hang:stream")
            assert (refused.status_code, "address 127.0.0.1" in refused.json()["message"]) == (503, True)
            streams.pop().cancel()
            await _served(gateway, "/v1/hang:stream")
            for stream in streams:
                stream.cancel()

    async def test_health_and_reflection_stream_within_the_same_bound(
        self, arguments: tuple[str, ...], tmp_path: Path
    ) -> None:
        few = {"UHM_MAX_STREAMS": "2", "UHM_CALLER_SHARE": "1", "UHM_SERVICE_SHARE": "1"}
        async with running(*arguments, log=tmp_path / "log", environment=few) as gateway:
            health = health_pb2_grpc.HealthStub(gateway.channel)
            reflection = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
            ours = health_pb2.HealthCheckRequest(service=SERVICE)
            watch = health.Watch(ours)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            listing = reflection.ServerReflectionInfo()
            await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            names = {service.name for service in (await listing.read()).list_services_response.service}
            assert SERVICE in names
            for more in (health.Watch(ours), reflection.ServerReflectionInfo()):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await more.read()
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
                assert _retry_info(error.value).retry_delay.seconds == 1
            assert (await health.Check(ours)).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
            listing.cancel()


class TestHeads:
    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"GET /v1/say/" + b"x" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            (b"GET /v1/say/" + b"x" * 5000, 414),
            (b"GET /v1/say/x HTTP/1.1\r\n" + b"A: b\r\n" * 21 + b"\r\n", 431),
            (b"GET /v1/say/x HTTP/1.1\r\nA: " + b"b" * 4000 + b"\r\n\r\n", 431),
            (b"GET /v1/say/x HTTP/1.1\r\nA: " + b"b" * 5000, 431),
            (b"POST /v1/say HTTP/1.1\r\nContent-Length: 2\r\n" + b"A: b\r\n" * 21 + b"\r\n{}", 431),
            (b"what is this\r\n\r\n", 400),
            (CHAT % (b"/v1/chat", b"A: b\r\n" * 20), 431),
        ],
    )
    async def test_too_much_is_refused_in_the_form_of_the_api(
        self, impatient: Gateway, head: bytes, status: int
    ) -> None:
        answered, headers, body = await sent(impatient, head)
        assert (answered, headers["connection"], json.loads(body)["details"]) == (status, "close", [])
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert len(headers["x-request-id"]) == 32

    async def test_a_refusal_is_for_the_request_that_named_itself(self, impatient: Gateway) -> None:
        head = b"GET /v1/say/x HTTP/1.1\r\nX-Request-Id: mine\r\n" + b"A: b\r\n" * 21 + b"\r\n"
        assert (await sent(impatient, head))[1]["x-request-id"] == "mine"

    async def test_what_is_just_within_the_limits_is_served(self, impatient: Gateway) -> None:
        headers = b"".join(b"A%d: b\r\n" % number for number in range(17)) + b"B: " + b"c" * 2000 + b"\r\n"
        request = b"GET /v1/say/" + b"x" * 900 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n"
        assert (await sent(impatient, request))[0] == 200


class TestPipelines:
    """Requests that are sent before the one before them is answered (RFC 9112, section 9.3.2)."""

    @pytest.mark.parametrize("path", [b"/v1/hang", b"/v1/hang:stream"])
    @pytest.mark.parametrize(
        "second",
        [
            b"garbage\r\n\r\n",
            b"GET /v1/say/" + b"x" * 5000,
            b"GET /v1/say/x HTTP/1.1\r\nHost: ",
            b"POST /v1/say HTTP/1.1\r\nContent-Length: 4000\r\n\r\n{",
            CHAT % (b"/v1/chat", b""),
        ],
    )
    async def test_the_first_answer_is_whole_whatever_comes_after_it(
        self, impatient: Gateway, upstream: Echo, path: bytes, second: bytes
    ) -> None:
        async with connected(impatient) as (reader, writer):
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nGrpc-Timeout: 5S\r\n\r\n" % path)
            await until(upstream.hanging.is_set)
            await asyncio.sleep(0.2)
            writer.write(second)
            answer = await reader.read()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b'"code":4,' in answer
        assert answer.startswith(b"HTTP/1.1 504 ") or answer.endswith(b"\r\n0\r\n\r\n")

    async def test_only_so_many_are_kept(self, impatient: Gateway, upstream: Echo) -> None:
        async with connected(impatient) as (reader, writer):
            writer.write(b"GET /v1/hang HTTP/1.1\r\nHost: x\r\nGrpc-Timeout: 1S\r\n\r\n")
            await until(upstream.hanging.is_set)
            writer.write(b"GET /v1/say/x HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
            answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert Counter(answer[:3] for answer in answers) == {b"504": 1, b"200": PIPELINED}
        assert [b"connection: close" in answer for answer in answers] == [False] * PIPELINED + [True]

    async def test_who_goes_has_its_first_call_cancelled(self, impatient: Gateway, upstream: Echo) -> None:
        async with connected(impatient) as (_, writer):
            writer.write(b"GET /v1/hang HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(upstream.hanging.is_set)
            writer.write(b"GET /v1/say/x HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.2)
        await asyncio.wait_for(upstream.cancelled.wait(), 5)


class TestSlowClients:
    async def test_two_hundred_slow_heads_do_not_disturb_others_and_are_ended(self, impatient: Gateway) -> None:
        slow = [asyncio.open_connection("127.0.0.1", impatient.rest_port) for _ in range(SLOW_CLIENTS)]
        connections = await asyncio.gather(*slow)
        for _, writer in connections:
            writer.write(b"GET /v1/say/x HTTP/1.1\r\nHost: x\r\nA: ")
        assert await _statuses(impatient, 50) == {200: 50}
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
        assert Counter(answer.split()[1] for answer in answers) == {b"408": SLOW_CLIENTS}
        for _, writer in connections:
            writer.close()

    @pytest.mark.parametrize(
        ("begun", "slowly"),
        [
            (b"", b""),
            (b"GET /v1/say/", b"x" * 200),
            (b"POST /v1/say HTTP/1.1\r\nContent-Length: 400\r\n\r\n{", b""),
            (b"POST /v1/say HTTP/1.1\r\nContent-Length: 4000\r\n\r\n{", b" " * 200),
            (b"POST /v1/join HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
            (b"POST /v1/say HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 30),
        ],
    )
    async def test_what_does_not_come_in_time_is_answered_408(
        self, impatient: Gateway, begun: bytes, slowly: bytes
    ) -> None:
        status, _, body = await sent(impatient, begun, slowly=slowly)
        assert (status, json.loads(body)["code"]) == (408, 4)

    async def test_a_call_whose_client_stops_sending_is_cancelled(self, impatient: Gateway, upstream: Echo) -> None:
        begun = b"POST /v1/upload/x HTTP/1.1\r\nContent-Length: 4000\r\n\r\nabc"
        status, _, _ = await sent(impatient, begun)
        assert status == 408
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    async def test_a_body_that_is_held_back_is_not_slow(self, impatient: Gateway, upstream: Echo) -> None:
        call = asyncio.create_task(impatient.http.post("/v1/upload/slow", content=b"x" * (8 << 20)))
        await until(lambda: upstream.taken)
        await asyncio.sleep(4)
        upstream.taking.set()
        assert (await call).json()["count"] == str(8 << 20)

    @pytest.mark.parametrize("head", [b"GET /v1/flood HTTP/1.1\r\nHost: x\r\n\r\n", CHAT % (b"/v1/flood", b"")])
    async def test_a_client_that_does_not_read_is_left(self, impatient: Gateway, upstream: Echo, head: bytes) -> None:
        async with connected(impatient) as (reader, writer):
            writer.write(head)
            await until(lambda: upstream.flooded)
            await asyncio.sleep(6)
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(1 << 20):
                    pass
        assert upstream.flooded < 256

    async def test_a_stream_of_chunks_may_be_slow(self, impatient: Gateway) -> None:
        """A stream has no rate to keep to, as a body that is held in memory has."""
        begun = b"POST /v1/join HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await sent(impatient, begun, slowly=b"1\r\n \r\n" * 10 + b"0\r\n\r\n"))[0] == 200

    async def test_a_tls_handshake_that_does_not_come_is_ended(
        self, arguments: tuple[str, ...], tmp_path: Path
    ) -> None:
        pair = Authority(tmp_path, name="ours").sign("gateway")
        environment = IMPATIENT | {"UHM_TLS_CERTIFICATE": str(pair.certificate), "UHM_TLS_KEY": str(pair.key)}
        log = tmp_path / "log"
        async with running(*arguments, log=log, environment=environment) as gateway, connected(gateway) as (reader, _):
            assert await reader.read() == b""

    async def test_clients_that_vanish_are_noticed(self) -> None:
        """Their systems are asked whether they are there."""
        with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                found = {option: accepted.getsockopt(socket.IPPROTO_TCP, option) for option in KEEPALIVE}
        assert found == KEEPALIVE

    async def test_connections_have_a_bound(self, arguments: tuple[str, ...], tmp_path: Path) -> None:
        few = {"UHM_MAX_CONNECTIONS": "5"}
        async with running(*arguments, log=tmp_path / "log", environment=few) as gateway:
            opened = [await asyncio.open_connection("127.0.0.1", gateway.rest_port) for _ in range(5)]
            status, headers, _ = await sent(gateway, b"")
            assert (status, headers["retry-after"]) == (503, "1")
            for _, writer in opened:
                writer.write(CHAT % (b"/v1/chat", b""))
            for reader, _ in opened:
                assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
            assert (await sent(gateway, b""))[0] == 503
            for _, writer in opened:
                writer.close()
            await _served(gateway, "/v1/say/x")
        assert "Traceback" not in text_of(tmp_path / "log")


async def _statuses(gateway: Gateway, count: int) -> Counter[int]:
    answers = await asyncio.gather(*(gateway.http.get("/v1/say/x", timeout=60) for _ in range(count)))
    return Counter(answer.status_code for answer in answers)


async def _served(gateway: Gateway, path: str) -> None:
    """Waits until there is room again."""
    async with asyncio.timeout(20):
        while await _first_status(gateway, path) != 200:  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.05)


async def _first_status(gateway: Gateway, path: str) -> int:
    async with gateway.http.stream("GET", path) as answer:
        return answer.status_code


def _retry_info(error: grpc.aio.AioRpcError) -> error_details_pb2.RetryInfo:
    status = rpc_status.from_call(_Ended(error))
    assert status is not None
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR))
    return info


class _Ended:
    """An error as grpc_status wants to see calls."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code
        self.details = error.details
        self.trailing_metadata = error.trailing_metadata


def _resident_bytes(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
