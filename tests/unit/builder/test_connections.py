"""Connections to registries: the environment's proxies, and what a redirect may send."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.builder import fake_registry as fake
from uhm_builder.errors import HostDenied
from uhm_builder.hosts import HostRules
from uhm_builder.sources import connections
from uhm_builder.sources.connections import connect, trust


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def proxy(monkeypatch):
    """A proxy that is in the environment, and knows one address."""
    async with fake.FakeRegistry() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.host)  # as curl takes it, too
        proxy.content["http://registry.invalid/v2/"] = ("text/plain", b"by proxy")
        yield proxy


@pytest.fixture
async def registry():
    async with fake.FakeRegistry() as registry:
        registry.content["/v2/"] = ("text/plain", b"straight")
        yield registry


async def test_requests_go_through_the_proxy(proxy):
    async with connect(HostRules(), tls=trust(), proxies=True) as client:
        assert (await client.get("http://registry.invalid/v2/")).text == "by proxy"
        with pytest.raises(httpx.ProxyError):  # it opens no tunnels
            await client.get("https://registry.invalid/v2/")

    assert [(each.method, each.path) for each in proxy.requests] == [
        ("GET", "http://registry.invalid/v2/"),
        ("CONNECT", "registry.invalid:443"),
    ]


@pytest.mark.parametrize("known", ["127.0.0.1", "elsewhere.example, {registry}", "*"])
async def test_no_proxy_is_honoured(proxy, registry, monkeypatch, known):
    monkeypatch.setenv("NO_PROXY", known.format(registry=registry.host))

    async with connect(HostRules(), tls=trust(), proxies=True) as client:
        assert (await client.get(f"{registry.url}/v2/")).text == "straight"

    assert proxy.requests == []


async def test_without_proxies_the_environment_does_not_count(proxy, registry):
    async with connect(HostRules(), tls=trust(), proxies=False) as client:
        assert (await client.get(f"{registry.url}/v2/")).text == "straight"

    assert proxy.requests == []


async def test_a_proxy_is_not_asked_for_what_is_denied(proxy):
    async with connect(HostRules.of(denied=("registry.invalid",)), tls=trust(), proxies=True) as client:
        with pytest.raises(HostDenied):
            await client.get("http://registry.invalid/v2/")

    assert proxy.requests == []


@pytest.mark.parametrize(("size", "followed"), [(100, True), (connections.REDIRECT_MAX + 1, False)])
async def test_of_a_redirect_little_is_read_and_nothing_decoded(registry, size, followed):
    registry.redirect["/from"] = f"{registry.url}/v2/"
    send = registry.send

    async def with_body(writer, status, body, headers=None, cut=None):
        if status == 307:
            body, headers = b"x" * size, {**headers, "Content-Encoding": "gzip"}
        return await send(writer, status, body, headers, cut)

    registry.send = with_body
    async with connect(HostRules(), tls=trust(), proxies=False) as client:
        if followed:
            assert (await client.get(f"{registry.url}/from", follow_redirects=True)).text == "straight"
        else:
            with pytest.raises(httpx.RemoteProtocolError, match="a redirect has more than"):
                await client.get(f"{registry.url}/from", follow_redirects=True)
