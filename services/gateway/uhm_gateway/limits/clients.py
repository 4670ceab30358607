"""Who is at the other end: a client's address, also behind proxies, and the program that it says it is.

A proxy's word about the address counts only where the proxy's own address is trusted by the settings; anybody can write
a header. Proxies append, so the list is read from its end: the first address that is not a trusted proxy's is the
client's. Only the one header that the settings name is read, because a proxy passes on the others as they came.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Network", "ProxyHeader", "TrustedProxies", "address_of_peer", "shown_agent"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ProxyHeader = Literal["x-forwarded-for", "forwarded"]

AGENT_LENGTH = 200
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_FOR = re.compile(r'(?:^|[;\s])for=(?:"([^"]*)"|([^;,\s"]+))', re.IGNORECASE)  # RFC 7239, section 4
_WITH_PORT = re.compile(r"\[(?P<v6>[^]]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxies:
    """Networks of proxies, and the header in which they say for whom they ask."""

    networks: Sequence[Network] = ()
    header: ProxyHeader = "x-forwarded-for"

    def address(self, peer: str, said: Iterable[str]) -> str:
        """The client's address; `peer` is who is connected, `said` the values of the header, in their order."""
        if not self.networks or not self._trusts(peer):
            return peer
        client = peer
        for hop in reversed(list(self._hops(said))):
            address = _address(hop)
            if address is None:
                break
            client = address
            if not self._trusts(client):
                break
        return client

    def _hops(self, said: Iterable[str]) -> Iterator[str]:
        for value in said:
            for element in value.split(","):
                if self.header == "x-forwarded-for":
                    yield element.strip()
                else:
                    found = _FOR.search(element.strip())
                    yield (found[1] or found[2]) if found else ""

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)


@lru_cache(maxsize=4096)
def address_of_peer(peer: str) -> str:
    """The address in what grpc calls a peer: `ipv4:127.0.0.1:4711`, `ipv6:%5B::1%5D:4711`; empty for others."""
    scheme, _, rest = peer.partition(":")
    return _address(unquote(rest)) or "" if scheme in {"ipv4", "ipv6"} else ""


def shown_agent(said: str) -> str:
    """A user agent as metadata can hold it."""
    said = said[:AGENT_LENGTH]
    return said if said.isascii() and said.isprintable() else _UNPRINTABLE.sub("?", said)


def _address(text: str) -> str | None:
    """An address in its one usual form, without a port; None where it is not one, such as `unknown` or `_hidden`."""
    found = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((found["v6"] or found["v4"]) if found else text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
