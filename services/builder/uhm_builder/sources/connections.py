"""Connections to registries: which certificates are trusted, and only hosts that the rules allow.

httpx resolves a name where it connects, so that is where addresses are checked: in the network backend below it.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are followed, as curl follows them. httpx looks at them only where it makes its own
transport, so `_Proxied` does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from uhm_builder.hosts import HostRules, IPAddress

__all__ = ["connect", "trust"]

TIMEOUT = httpx.Timeout(30, connect=5, pool=None)
MAX_REDIRECTS = 5
REDIRECT_MAX = 64 << 10
"""Most that is read of the body of a redirect."""


@lru_cache(maxsize=32)
def trust(ca_certificate: str = "") -> ssl.SSLContext:
    """Trusts certifi's and the system's authorities, and those given as PEM. Raises ssl.SSLError, ValueError."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    if ca_certificate:
        context.load_verify_locations(cadata=ca_certificate)
    return context


def connect(rules: HostRules, *, tls: ssl.SSLContext, proxies: bool) -> httpx.AsyncClient:
    """A client that connects by the rules, and through the environment's proxies if it may. Raises HostDenied."""

    async def check(request: httpx.Request) -> None:
        rules.check_name(request.url.host)

    direct = _Transport(rules, tls=tls)
    return httpx.AsyncClient(
        transport=_Proxied(direct, tls=tls) if proxies else direct,
        verify=tls,
        trust_env=False,
        timeout=TIMEOUT,
        max_redirects=MAX_REDIRECTS,
        event_hooks={"request": [check], "response": [_shorten]},
    )


async def _shorten(response: httpx.Response) -> None:
    """Bounds what httpx reads by itself: the whole body of a redirect that it follows, decoded."""
    if response.has_redirect_location and isinstance(response.stream, httpx.AsyncByteStream):
        response.headers.pop("Content-Encoding", None)
        response.stream = _Short(response.stream)


class _Short(httpx.AsyncByteStream):
    """The body of a redirect."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > REDIRECT_MAX:
                raise httpx.RemoteProtocolError(f"a redirect has more than {REDIRECT_MAX} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own, with a pool of connections that go through `_Backend`."""

    def __init__(self, rules: HostRules, *, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_keepalive_connections=20, keepalive_expiry=5, network_backend=_Backend(rules)
        )


class _Proxied(httpx.AsyncBaseTransport):
    """Goes through the environment's proxy for a URL's scheme, and past it to the hosts of NO_PROXY."""

    def __init__(self, direct: httpx.AsyncBaseTransport, *, tls: ssl.SSLContext) -> None:
        self._direct = direct
        self._proxies = {
            scheme: httpx.AsyncHTTPTransport(verify=tls, proxy=url if "://" in url else f"http://{url}")
            for scheme, url in getproxies().items()
            if scheme in ("http", "https") and url
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        past = any(proxy_bypass(host) for host in (url.host, url.netloc.decode()))
        proxy = None if past else self._proxies.get(url.scheme)
        return await (proxy or self._direct).handle_async_request(request)

    async def aclose(self) -> None:
        for transport in (self._direct, *self._proxies.values()):
            await transport.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """Resolves names, and connects to what the rules leave of their addresses, in the resolver's order."""

    def __init__(self, rules: HostRules) -> None:
        self._rules = rules
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = self._rules.permitted(host, await _resolve(host, port, within=timeout))
        for number, address in enumerate(addresses, start=1):
            try:
                return await self._backend.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise AssertionError(host)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


async def _resolve(host: str, port: int, *, within: float | None) -> list[IPAddress]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(f"{host} is not resolved in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} is not known: {error}") from error
    return [ipaddress.ip_address(address[0]) for *_, address in found]
