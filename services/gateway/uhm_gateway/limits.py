"""Who may call now: rates by user and address, and how many calls are under way, the same on both ports.

The user is who a verified token names, so that nobody spends another's budget; where there is no good token, and for
APIs without tokens, there is only the address. Addresses count first: they bound how many tokens anybody can have
checked. Of IPv6 the network of 64 bits counts, which is the least that anybody gets.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from uhm_common.errors import ResourceExhausted, UhmError
from uhm_gateway.overload import Slots, Taken
from uhm_gateway.rate import Buckets, Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uhm_common.identity import Identity

__all__ = ["Admission", "Capacity", "TooManyRequests", "Verifier"]

IPV6_NETWORK_BITS = 64


class TooManyRequests(ResourceExhausted):
    """A user or an address asks more often than it may."""

    def __init__(self, who: str, *, retry_after: float) -> None:
        super().__init__(f"{who} makes too many requests.", hint="Make fewer of them.", retry_after=retry_after)


class Verifier(Protocol):
    """Who knows whose a token is; uhm_common.verifier.TokenVerifier is one."""

    async def identity(self, metadata: Mapping[str, str]) -> Identity:
        """Who sent this metadata. Raises UhmError where nobody can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Rates, each of which may be 0 for none, and how many calls there may be at a time.

    `service_share` and `caller_share` are which part of all one service, or one user or address, may have.
    """

    address: Rate
    user: Rate
    unary: int
    streams: int
    service_share: float = 1.0
    caller_share: float = 1.0


class Admission:
    """Lets calls in, or refuses them with an error that says when to come back."""

    def __init__(self, capacity: Capacity, *, verifier: Verifier | None = None) -> None:
        """Without a verifier, callers are addresses."""
        self._capacity = capacity
        self._verifier = verifier
        self._addresses = Buckets(capacity.address)
        self._users = Buckets(capacity.user)
        self._unary = Slots(capacity.unary, kind="calls")
        self._streams = Slots(capacity.streams, kind="streams")

    async def caller(self, *, address: str, authorization: str) -> str:
        """Counts a request; answers who made it, such as `user alice`. Raises TooManyRequests."""
        network = f"address {network_of(address)}" if address else "a client without an address"
        if wait := self._addresses.take(network):
            raise TooManyRequests(network.capitalize(), retry_after=wait)
        if self._verifier is None or not authorization:
            return network
        try:
            identity = await self._verifier.identity({"authorization": authorization})
        except UhmError:
            # The service itself refuses it, and says why; until then it is nobody's.
            return network
        user = f"user {identity.username}"
        if wait := self._users.take(user):
            raise TooManyRequests(user.capitalize(), retry_after=wait)
        return user

    def slot(self, caller: str, *, service: str, streams: bool) -> Taken:
        """A place among the calls under way, taken until the context ends. Raises Overloaded."""
        slots = self._streams if streams else self._unary
        capacity = self._capacity
        return slots.take(((service, capacity.service_share), (caller, capacity.caller_share)))


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
