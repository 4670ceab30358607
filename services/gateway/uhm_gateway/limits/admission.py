"""Who may call now: rates by user and address, and how many calls are under way, the same on both ports.

The user is who a verified token names, so that nobody spends another's budget; where there is no good token, and for
APIs without tokens, there is only the address. Addresses count first: they bound how many tokens anybody can have
checked. Of IPv6 the network of 64 bits counts, which is the least that anybody gets.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from uhm_common.errors import ResourceExhausted, UhmError
from uhm_gateway.limits.rate import Buckets, Rate
from uhm_gateway.limits.slots import Slots, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uhm_common.callers.identity import Identity

__all__ = ["Admission", "Capacity", "TooManyRequests", "Verifier"]

IPV6_NETWORK_BITS = 64
# How long one waits to hear whose a token is: it is asked before anything bounds how many wait.
ASKING_SECONDS = 0.1
# For how long one does not ask again about a token that nobody vouched for, and of how many this is remembered.
UNKNOWN_SECONDS = 1.0
UNKNOWN_TOKENS = 1024


class TooManyRequests(ResourceExhausted):
    """A user or an address asks more often than it may."""

    def __init__(self, who: str, *, retry_after: float) -> None:
        super().__init__(f"{who} makes too many requests.", hint="Make fewer of them.", retry_after=retry_after)


class Verifier(Protocol):
    """Who knows whose a token is; uhm_common.callers.verifier.TokenVerifier is one."""

    async def identity(self, metadata: Mapping[str, str]) -> Identity:
        """Who sent this metadata. Raises UhmError where nobody can say."""

    def knows(self, metadata: Mapping[str, str]) -> bool:
        """Whether it has said so before, so that it says it at once. Raises UhmError."""


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

    def __init__(
        self,
        capacity: Capacity,
        *,
        verifier: Verifier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a verifier, callers are addresses."""
        self._capacity = capacity
        self._verifier = verifier
        self._clock = clock
        self._unknown: OrderedDict[str, float] = OrderedDict()
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
        identity = await self._identity(self._verifier, authorization)
        if identity is None:
            # The service itself refuses it, and says why; until then it is nobody's.
            return network
        user = f"user {identity.username}"
        if wait := self._users.take(user):
            raise TooManyRequests(user.capitalize(), retry_after=wait)
        return user

    async def _identity(self, verifier: Verifier, authorization: str) -> Identity | None:
        """Whose a token is; None where nobody says it soon, or did not just now."""
        metadata = {"authorization": authorization}
        try:
            if verifier.knows(metadata):  # most are, and a timer costs as much as all the rest of this
                return await verifier.identity(metadata)
            if self._clock() < self._unknown.get(authorization, 0.0):
                return None
            async with asyncio.timeout(ASKING_SECONDS):
                return await verifier.identity(metadata)
        except (UhmError, TimeoutError):
            self._unknown[authorization] = self._clock() + UNKNOWN_SECONDS
            if len(self._unknown) > UNKNOWN_TOKENS:
                self._unknown.popitem(last=False)
            return None

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
