"""TLS and mTLS: clients to the gateway, REST and gRPC, and the gateway to a service."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.certificates import Authority, Pair
from tests.integration.echo_system import SERVICE, Echo, running, stub
from uhm_common.bootstrap import bind
from uhm_common.tls import ClientTls, ServerTls, open_channel
from uhm_gateway.mapping.descriptors import load_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.echo_system import Gateway

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), name="ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """What another authority signed."""
    return Authority(tmp_path_factory.mktemp("theirs"), name="theirs").sign("stranger")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure_echo(authority: Authority, descriptor_set: Path) -> AsyncIterator[tuple[Echo, int]]:
    """A service that only talks to who shows a certificate."""
    upstream = Echo(load_api(descriptor_set))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((upstream.handler(),))
    pair = authority.sign("service")
    tls = ServerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.ca)
    port = server.add_secure_port("127.0.0.1:0", tls.credentials())
    await server.start()
    yield upstream, port
    await server.stop(None)


def _environment(authority: Authority, *, shown: Pair | None) -> dict[str, str]:
    front = authority.sign("gateway")
    environment = {
        "UHM_TLS_CERTIFICATE": str(front.certificate),
        "UHM_TLS_KEY": str(front.key),
        "UHM_TLS_CLIENT_CA": str(authority.ca),
        "UHM_SERVICES_CA": str(authority.ca),
    }
    if shown is not None:
        environment |= {"UHM_SERVICES_CERTIFICATE": str(shown.certificate), "UHM_SERVICES_KEY": str(shown.key)}
    return environment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure_gateway(
    authority: Authority,
    secure_echo: tuple[Echo, int],
    descriptor_set: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateway]:
    arguments = ("--descriptor-set", str(descriptor_set), "--route", f"{SERVICE}=localhost:{secure_echo[1]}")
    log = tmp_path_factory.mktemp("tls") / "log"
    async with running(
        *arguments, log=log, environment=_environment(authority, shown=authority.sign("front"))
    ) as front:
        yield front


def _context(authority: Authority, pair: Pair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def _channel(gateway: Gateway, authority: Authority, pair: Pair | None) -> grpc.aio.Channel:
    shown = {"certificate": pair.certificate, "key": pair.key} if pair else {}
    return open_channel(f"localhost:{gateway.grpc_port}", tls=ClientTls(ca=authority.ca, **shown))


async def test_rest_all_the_way(secure_gateway: Gateway, authority: Authority) -> None:
    context = _context(authority, authority.sign("client"))
    async with httpx.AsyncClient(verify=context, base_url=f"https://localhost:{secure_gateway.rest_port}") as client:
        assert (await client.get("/v1/say/x")).json()["text"] == "x"
    async with connect(f"wss://localhost:{secure_gateway.rest_port}/v1/count/1", ssl=context) as socket:
        assert json.loads(await socket.recv())["result"]["count"] == "0"


async def test_grpc_all_the_way(secure_gateway: Gateway, secure_echo: tuple[Echo, int], authority: Authority) -> None:
    async with _channel(secure_gateway, authority, authority.sign("client")) as channel:
        say = stub(secure_gateway, secure_echo[0], "Say", "unary_unary", channel=channel)
        assert (await say(secure_echo[0].words(text="x"), timeout=10)).text == "x"


@pytest.mark.parametrize("shows", ["nothing", "anothers"])
async def test_clients_that_are_not_ours(
    secure_gateway: Gateway, secure_echo: tuple[Echo, int], authority: Authority, stranger: Pair, shows: str
) -> None:
    pair = stranger if shows == "anothers" else None
    context = _context(authority, pair)
    async with httpx.AsyncClient(verify=context, base_url=f"https://localhost:{secure_gateway.rest_port}") as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/v1/say/x")
    async with _channel(secure_gateway, authority, pair) as channel:
        say = stub(secure_gateway, secure_echo[0], "Say", "unary_unary", channel=channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(secure_echo[0].words(text="x"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_nothing_goes_in_the_clear(secure_gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", secure_gateway.rest_port)
    writer.write(b"GET /v1/say/x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_old_versions_are_refused(secure_gateway: Gateway, authority: Authority) -> None:
    context = _context(authority, authority.sign("client"))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("localhost", secure_gateway.rest_port, ssl=context)


async def test_a_service_does_not_talk_to_a_gateway_that_shows_nothing(
    secure_echo: tuple[Echo, int], authority: Authority, descriptor_set: Path, tmp_path: Path
) -> None:
    arguments = ("--descriptor-set", str(descriptor_set), "--route", f"{SERVICE}=localhost:{secure_echo[1]}")
    environment = _environment(authority, shown=None)
    async with running(*arguments, log=tmp_path / "log", environment=environment) as gateway:
        context = _context(authority, authority.sign("client"))
        async with httpx.AsyncClient(verify=context, base_url=f"https://localhost:{gateway.rest_port}") as client:
            answer = await client.get("/v1/say/x")
        assert (answer.status_code, "not answering" in answer.json()["message"]) == (503, True)


async def test_a_service_of_ours_listens_with_tls(authority: Authority, free_port: object) -> None:
    pair = authority.sign("ours")
    server = grpc.aio.server()
    address = f"127.0.0.1:{free_port()}"  # type: ignore[operator]
    bind(server, address, tls=ServerTls(certificate=pair.certificate, key=pair.key))
    await server.start()
    try:
        async with open_channel(address, tls=ClientTls(ca=authority.ca)) as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)
    finally:
        await server.stop(None)
