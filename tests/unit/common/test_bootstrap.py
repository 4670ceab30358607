"""Processes: how they start, refuse to start, and end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.certificates import Authority
from uhm_common.reflection import REFLECTION_NAMES
from uhm_common.tls import ClientTls, open_channel

SERVICE = """
import asyncio, sys
import grpc
from uhm_common.bootstrap import Server, main
from uhm_common.database import Database
from uhm_common.errors import FailedPrecondition
from uhm_common.settings import CommonSettings

async def slowly(request, context):
    await asyncio.sleep(1)
    return b"done"

def add(server):
    handlers = {"Slowly": grpc.unary_unary_rpc_method_handler(slowly)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Slow", handlers),))

async def forever():
    await asyncio.Event().wait()

async def ends():
    await asyncio.sleep(0.2)

async def fails():
    raise FailedPrecondition("It cannot go on.", hint="Do something.")

async def refuses(settings):
    raise FailedPrecondition("It cannot run.", hint="Do something.")

async def away(settings):
    async with Database(f"postgresql+asyncpg://{sys.argv[2]}/nothing").read():
        pass

def serves(*background):
    async def run(settings):
        await Server(
            listen=sys.argv[2], services=["test.Slow"], add=add, background=background, tls=settings.server_tls
        ).serve()
    return run

RUNS = {
    "serve": serves(forever),
    "ends": serves(ends),
    "fails": serves(fails, forever),
    "away": away,
    "refuse": refuses,
}
main("test", CommonSettings, RUNS[sys.argv[1]])
"""


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
async def start(tmp_path):
    """Starts the service; it is killed if it is still there in the end."""
    children = []
    (tmp_path / "service.py").write_text(SERVICE)

    async def start(*arguments, **environment):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(tmp_path / "service.py"),
            *arguments,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", **environment},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def line_of(child, event) -> dict:
    """Reads the log up to an event."""
    async with asyncio.timeout(30):
        while text := await child.stderr.readline():
            if text.startswith(b"{") and (line := json.loads(text))["event"] == event:
                return line
    raise AssertionError(event)


async def ending(child) -> tuple[int, str]:
    _, errors = await asyncio.wait_for(child.communicate(), 30)
    return child.returncode, errors.decode()


async def test_it_serves_says_so_and_drains(start, address):
    child = await start("serve", address)
    assert (await line_of(child, "server.serving"))["listen"] == address
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "test.Slow"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for reflection in REFLECTION_NAMES:
            listing = reflection_pb2.ServerReflectionRequest(list_services="")
            ask = channel.stream_stream(
                f"/{reflection}/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            names = {service.name for service in (await ask(iter([listing])).read()).list_services_response.service}
            assert {"test.Slow", "grpc.health.v1.Health", *REFLECTION_NAMES} <= names

        running = asyncio.ensure_future(channel.unary_unary("/test.Slow/Slowly")(b""))
        await asyncio.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        assert await running == b"done"

    assert (await ending(child))[0] == 0


async def test_it_does_not_wait_for_ever(start, address):
    """SIGINT with nothing going on ends it at once."""
    child = await start("serve", address)
    await line_of(child, "server.serving")
    child.send_signal(signal.SIGINT)
    code, _ = await asyncio.wait_for(ending(child), 4)
    assert code == 0


async def test_it_serves_over_tls_where_it_has_a_certificate(start, address, tmp_path):
    authority = Authority(tmp_path / "ca", name="ours")
    pair = authority.sign("service")
    child = await start("serve", address, UHM_TLS_CERTIFICATE=str(pair.certificate), UHM_TLS_KEY=str(pair.key))
    await line_of(child, "server.serving")
    async with open_channel(address, tls=ClientTls(ca=authority.ca)) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with open_channel(address, tls=None) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    child.send_signal(signal.SIGTERM)
    assert (await ending(child))[0] == 0


async def test_half_of_a_certificate(start, address):
    code, errors = await ending(await start("serve", address, UHM_TLS_KEY="/k"))
    assert (code, errors) == (1, "test: UHM_TLS_CERTIFICATE and UHM_TLS_KEY go together\n")


async def test_a_certificate_that_is_not_there(start, address):
    code, errors = await ending(await start("serve", address, UHM_TLS_CERTIFICATE="/none/c", UHM_TLS_KEY="/none/k"))
    assert code == 1
    assert "The certificate /none/c with the key /none/k cannot be used: No such file or directory." in errors
    assert "Traceback" not in errors


async def test_a_taken_port(start, address):
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        code, errors = await ending(await start("serve", address))
    assert code == 1
    assert f"test: Cannot listen on {address}" in errors
    assert "Traceback" not in errors


async def test_settings_that_do_not_fit(start, address):
    code, errors = await ending(await start("serve", address, UHM_AUTH_ADDRESS="nowhere", UHM_LOG_LEVEL="loud"))
    assert code == 1
    assert "test: UHM_AUTH_ADDRESS: Value error, 'nowhere' is not HOST:PORT" in errors
    assert "test: UHM_LOG_LEVEL: " in errors
    assert "Traceback" not in errors


async def test_a_refusal_is_one_sentence(start):
    assert await ending(await start("refuse")) == (1, "test: It cannot run. Do something.\n")


async def test_background_work_that_is_refused_says_so_in_one_sentence(start, address):
    code, errors = await ending(await start("fails", address))
    assert (code, errors.splitlines()[-1]) == (1, "test: It cannot go on. Do something.")
    assert "Traceback" not in errors


async def test_a_database_that_does_not_answer(start, address):
    code, errors = await ending(await start("away", address))
    assert code == 1
    assert errors.startswith("test: The database does not answer. Try again, or see whether it runs")
    assert "Connect call failed" in errors
    assert errors.count("\n") == 1


async def test_background_work_that_ends_takes_the_process_with_it(start, address):
    code, errors = await ending(await start("ends", address))
    assert code == 1
    assert "background work ended" in errors
