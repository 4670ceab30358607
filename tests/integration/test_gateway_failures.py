"""What clients of the gateway see when services stop, are slow, or come back, and what services see of clients that go.

The service is a process of its own, which is killed and started again. The bounds are the product's promises: generous
against what is measured, which is hundredths of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from typing import TYPE_CHECKING, Self

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.echo_system import SERVICE, Echo, Gateway, running, stub, until
from uhm_gateway.mapping.descriptors import load_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PROMISED_SECONDS = 1.0


class Service:
    """The service behind the gateway: always at the same port, running or not."""

    def __init__(self, descriptor_set: Path) -> None:
        self._descriptor_set = descriptor_set
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        command = ("-m", "tests.integration.echo_system", str(self._descriptor_set), str(self.port))
        self._process = await asyncio.create_subprocess_exec(sys.executable, *command)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 20)

    async def kill(self) -> None:
        """Ends it at once, its connections with it."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None


@pytest_asyncio.fixture(loop_scope="module")
async def service(descriptor_set: Path) -> AsyncIterator[Service]:
    process = Service(descriptor_set)
    try:
        await process.start()
        yield process
    finally:
        await process.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def front(service: Service, descriptor_set: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    route = f"{SERVICE}=127.0.0.1:{service.port}"
    async with running("--descriptor-set", str(descriptor_set), "--route", route, log=tmp_path / "log") as gateway:
        assert (await gateway.http.get("/v1/say/x")).status_code == 200
        yield gateway


@pytest.fixture(scope="module")
def words(descriptor_set: Path) -> Echo:
    """Never called: it knows the messages."""
    return Echo(load_api(descriptor_set))


class Timer:
    """How long something takes, in seconds."""

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started


async def _answers(front: Gateway, path: str, status: int) -> None:
    """Returns when the path answers with the status."""
    async with asyncio.timeout(10):
        while (await front.http.get(path)).status_code != status:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.05)


async def _grpc_code(front: Gateway, words: Echo, name: str, *, deadline: float | None = None) -> grpc.StatusCode:
    try:
        await stub(front, words, name, "unary_unary")(words.words(), timeout=deadline)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class TestAServiceThatStops:
    async def test_rest_answers_503_at_once(self, service: Service, front: Gateway) -> None:
        await service.kill()
        for _ in range(3):
            with Timer() as timer:
                answer = await front.http.get("/v1/say/x")
            assert (answer.status_code, answer.json()["code"]) == (503, 14)
            assert int(answer.headers["retry-after"]) >= 1
            assert SERVICE in answer.json()["message"]
            assert timer.seconds < PROMISED_SECONDS

    async def test_grpc_answers_unavailable_at_once(self, service: Service, front: Gateway, words: Echo) -> None:
        assert await _grpc_code(front, words, "Say") is grpc.StatusCode.OK
        await service.kill()
        with Timer() as timer:
            assert await _grpc_code(front, words, "Say") is grpc.StatusCode.UNAVAILABLE
        assert timer.seconds < PROMISED_SECONDS

    async def test_running_calls_are_told_at_once(self, service: Service, front: Gateway, words: Echo) -> None:
        rest = asyncio.create_task(front.http.get("/v1/hang"))
        call = asyncio.create_task(_grpc_code(front, words, "Hang"))
        async with front.http.stream("GET", "/v1/hang:stream") as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            await asyncio.sleep(0.2)
            await service.kill()
            with Timer() as timer:
                assert (await rest).status_code == 503
                assert await call is grpc.StatusCode.UNAVAILABLE
                assert '"code":14' in await anext(lines)
            assert timer.seconds < PROMISED_SECONDS

    async def test_readiness_says_so(self, service: Service, front: Gateway) -> None:
        assert (await front.http.get("/readyz")).status_code == 200
        await service.kill()
        await _answers(front, "/readyz", 503)

    async def test_who_watches_its_health_is_told(self, service: Service, front: Gateway) -> None:
        watch = health_pb2_grpc.HealthStub(front.channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        async with asyncio.timeout(30):
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await service.kill()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await service.start()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()

    async def test_calls_succeed_soon_after_it_is_back(self, service: Service, front: Gateway, words: Echo) -> None:
        await service.kill()
        for _ in range(5):
            assert (await front.http.get("/v1/say/x")).status_code == 503
            await asyncio.sleep(0.3)
        await service.start()
        with Timer() as timer:
            await _answers(front, "/v1/say/x", 200)
            assert await _grpc_code(front, words, "Say") is grpc.StatusCode.OK
        assert timer.seconds < 2 * PROMISED_SECONDS


class TestNobodyWhoKnowsTokens:
    @pytest.mark.parametrize("token", ["", f"uhm_{'0' * 16}_{'x' * 43}"])
    async def test_calls_are_answered_all_the_same(self, tmp_path: Path, token: str) -> None:
        """Whose they are only matters to the limits, which take the address meanwhile."""
        nowhere = {f"UHM_{name}_ADDRESS": "127.0.0.1:9" for name in ("AUTH", "BUILDER", "MACHINES")}
        async with running(log=tmp_path / "log", environment=nowhere) as gateway:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            with Timer() as timer:
                assert (await gateway.http.get("/api/v1/machines", headers=headers)).status_code == 503
            assert timer.seconds < PROMISED_SECONDS


class TestAServiceThatIsSlow:
    async def test_rest_answers_504_at_the_deadline(self, front: Gateway) -> None:
        with Timer() as timer:
            answer = await front.http.get("/v1/hang", headers={"grpc-timeout": "500m"})
        assert (answer.status_code, answer.json()["code"]) == (504, 4)
        assert 0.5 <= timer.seconds < 0.5 + PROMISED_SECONDS

    async def test_a_stream_ends_at_the_deadline(self, front: Gateway) -> None:
        with Timer() as timer:
            answer = await front.http.get("/v1/hang:stream", headers={"grpc-timeout": "500m"})
        assert '"code":4' in answer.text.splitlines()[-1]
        assert 0.5 <= timer.seconds < 0.5 + PROMISED_SECONDS

    async def test_grpc_ends_at_the_deadline(self, front: Gateway, words: Echo) -> None:
        with Timer() as timer:
            assert await _grpc_code(front, words, "Hang", deadline=0.5) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert timer.seconds < 0.5 + PROMISED_SECONDS

    async def test_a_unary_call_has_a_deadline_even_if_its_client_sets_none(
        self, service: Service, descriptor_set: Path, tmp_path: Path
    ) -> None:
        arguments = ("--descriptor-set", str(descriptor_set), "--route", f"{SERVICE}=127.0.0.1:{service.port}")
        environment = {"UHM_UNARY_TIMEOUT_SECONDS": "0.5"}
        async with running(*arguments, log=tmp_path / "log", environment=environment) as gateway:
            with Timer() as timer:
                assert (await gateway.http.get("/v1/hang")).status_code == 504
            assert timer.seconds < 0.5 + PROMISED_SECONDS


class TestAClientThatGoes:
    """The service, in this process, sees its call cancelled."""

    @pytest.mark.parametrize("path", ["/v1/hang", "/v1/hang:stream"])
    async def test_rest(self, gateway: Gateway, upstream: Echo, path: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.rest_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(upstream.hanging.is_set)
        writer.close()
        await asyncio.wait_for(upstream.cancelled.wait(), PROMISED_SECONDS)
        with contextlib.suppress(ConnectionError):
            await reader.read()

    @pytest.mark.parametrize(("name", "kind"), [("Hang", "unary_unary"), ("HangStream", "unary_stream")])
    async def test_grpc(self, gateway: Gateway, upstream: Echo, name: str, kind: str) -> None:
        call = stub(gateway, upstream, name, kind)(upstream.words())
        reading = asyncio.ensure_future(call.read() if kind == "unary_stream" else call)
        await until(upstream.hanging.is_set)
        call.cancel()
        await asyncio.wait_for(upstream.cancelled.wait(), PROMISED_SECONDS)
        with contextlib.suppress(asyncio.CancelledError):
            await reading

    async def test_grpc_by_a_lost_connection(self, gateway: Gateway, upstream: Echo) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            call = asyncio.ensure_future(
                stub(gateway, upstream, "Hang", "unary_unary", channel=channel)(upstream.words())
            )
            await until(upstream.hanging.is_set)
        await asyncio.wait_for(upstream.cancelled.wait(), PROMISED_SECONDS)
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call
