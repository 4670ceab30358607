"""Connections to registries: which certificates are trusted, and only hosts that the rules allow.

httpx resolves a name where it connects, so that is where addresses are checked: in the network backend below it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

import httpcore
import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uhm_builder.hosts import HostRules, IPAddress

__all__ = ["connect", "trust"]

TIMEOUT = httpx.Timeout(30, connect=5, pool=None)
MAX_REDIRECTS = 5


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

    return httpx.AsyncClient(
        transport=_Transport(rules, tls=tls),
        verify=tls,
        trust_env=proxies,
        timeout=TIMEOUT,
        max_redirects=MAX_REDIRECTS,
        event_hooks={"request": [check]},
    )


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own, with a pool of connections that go through `_Backend`."""

    def __init__(self, rules: HostRules, *, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_keepalive_connections=20, keepalive_expiry=5, network_backend=_Backend(rules)
        )


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
