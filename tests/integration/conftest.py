"""What the tests with real programs share."""

from __future__ import annotations

import os
import shutil

import grpc
import pytest
import pytest_asyncio

from tests.integration.echo_system import SERVICE, Echo, compile_echo, running
from uhm_common.dockerd import PrivateDockerd
from uhm_gateway.mapping.descriptors import load_api


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """The base takes half a minute to make, so the first builder makes it and the others get it as files."""
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def engine(tmp_path_factory, mirror):
    """A Docker Engine of our own, which gets images from the registry on loopback."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a Docker Engine of our own needs root and dockerd")
    with PrivateDockerd(tmp_path_factory.mktemp("docker"), registry_mirror=mirror) as engine:
        yield engine


@pytest.fixture(scope="session")
def descriptor_set(tmp_path_factory):
    """The descriptor set of an API that the gateway has never seen."""
    return compile_echo(tmp_path_factory.mktemp("echo"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo(descriptor_set):
    """A service of that API, and its port."""
    upstream = Echo(load_api(descriptor_set))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((upstream.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield upstream, port
    await server.stop(None)


@pytest.fixture(scope="module")
def arguments(echo, descriptor_set):
    """What a gateway in front of it is told: two services, one of which is not there."""
    routes = ("--route", f"{SERVICE}=127.0.0.1:{echo[1]}", "--route", "echo.v1.LostService=127.0.0.1:9")
    return ("--descriptor-set", str(descriptor_set), *routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(arguments, tmp_path_factory):
    """One gateway serves all tests of a module that leave it running: to start one takes longer than most of them."""
    allowed = ("--allow-metadata", "colour", "--allow-metadata", "raw-*")
    async with running(*arguments, *allowed, log=tmp_path_factory.mktemp("gateway") / "log") as front:
        yield front


@pytest.fixture
def upstream(echo):
    """The service behind the gateway, which remembers nothing of other tests."""
    echo[0].forget()
    return echo[0]
