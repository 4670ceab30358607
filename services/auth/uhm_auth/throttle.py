"""What keeps passwords and codes from being guessed: attempts that fail make the next wait, and then be refused.

Every attempt falls into four buckets: that of its username and address, of its username, of its address, and of the
whole system. A bucket holds some failures for free. Each further one doubles the time that must pass before the next
attempt, up to the bucket's longest. Buckets leak, one failure per `leak_seconds`: that is how they are forgotten.

- An attempt is counted before the password is looked at and forgiven when it was right, so a hundred guesses at one
  moment are a hundred guesses. One that is refused was no guess, and is not counted.
- Success empties the bucket of its username and address, and takes itself out of the other three: who logs in as
  themselves now and then does not empty the bucket of their address.
- Who has logged in from an address within the last 30 days meets only the bucket of that username and address there.
  Otherwise anybody could lock a user out by guessing that user's password from elsewhere.
- A short wait is waited here; for a longer one the call is refused, and told when to come again.

Nothing here asks whether a user exists. Buckets are named by an HMAC (RFC 2104): people type passwords as usernames. Of
an IPv6 address the first 64 bits count, because a customer has at least the other ones.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import math
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from uhm_auth.audit import Event, entry
from uhm_auth.errors import TooManyAttempts, TooManyPasswords
from uhm_auth.stores.failures import Bucket
from uhm_common.callers.calls import current_call
from uhm_common.logs import get_logger
from uhm_common.repeating import repeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from uhm_auth.audit import AuditLog
    from uhm_auth.stores.failures import FailureStore

__all__ = ["Limit", "Limits", "Throttle", "network"]

log = get_logger()

KNOWN_SECONDS = 30 * 24 * 3600
SWEEP_EVERY_SECONDS = 600
IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many failures a bucket holds for free, how slowly it forgets, and how long it makes wait."""

    free: int
    leak_seconds: float
    first_seconds: float
    longest_seconds: float

    def level(self, bucket: Bucket | None, *, now: int) -> float:
        """What has not leaked out of the bucket. `now` is in milliseconds."""
        if bucket is None:
            return 0.0
        return max(0.0, bucket.level - (now - bucket.last_at) / 1000 / self.leak_seconds)

    def wait(self, bucket: Bucket | None, *, now: int) -> float:
        """For how many seconds no attempt is let through. `now` is in milliseconds."""
        if bucket is None or (over := math.ceil(self.level(bucket, now=now)) - self.free) < 0:
            return 0.0
        spacing = min(self.longest_seconds, self.first_seconds * 2.0 ** min(over, 30))
        return max(0.0, (bucket.last_at - now) / 1000 + spacing)

    def with_one_more(self, bucket: Bucket | None, *, now: int) -> Bucket:
        """The bucket after an attempt. `now` is in milliseconds."""
        level = self.level(bucket, now=now) + 1
        return Bucket(level=level, last_at=now, expires_at=now + math.ceil(level * self.leak_seconds * 1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is asked of each kind of bucket, and how long a call may be held (seconds), and how many at once."""

    pair: Limit = Limit(free=5, leak_seconds=900, first_seconds=1, longest_seconds=900)
    username: Limit = Limit(free=20, leak_seconds=300, first_seconds=1, longest_seconds=60)
    address: Limit = Limit(free=100, leak_seconds=60, first_seconds=1, longest_seconds=60)
    everywhere: Limit = Limit(free=1000, leak_seconds=1, first_seconds=0.1, longest_seconds=1)
    hold_seconds: float = 3.0
    held: int = 100


class Throttle:
    """Lets attempts through, or not. `key` names the buckets; replicas have the same."""

    def __init__(
        self,
        failures: FailureStore,
        audit: AuditLog,
        *,
        limits: Limits,
        key: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._failures = failures
        self._audit = audit
        self._limits = limits
        self._key = key
        self._clock = clock
        self._held = 0
        self._listening: dict[str, set[asyncio.Event]] = {}  # by the pair whose success they wait for

    @asynccontextmanager
    async def attempt(self, username: str) -> AsyncIterator[None]:
        """Whatever checks a password or a code of a user does it in this block, and raises in it where that is wrong.

        TooManyPasswords, which looked at nothing, is no failure; every other exception is one. Waits before it enters
        the block, or raises TooManyAttempts instead.
        """
        names = self._names(username)
        counted = await self._enter(names)
        try:
            yield
        except TooManyPasswords:
            await self._forgive(names, counted, right=False)
            raise
        await self._forgive(names, counted, right=True)

    async def sweep(self) -> None:
        """Deletes empty buckets now and then, until cancelled."""
        await repeat(self._sweep, seconds=SWEEP_EVERY_SECONDS, failed="failures.not_swept")

    async def _sweep(self) -> None:
        if swept := await self._failures.sweep(now=self._now()):
            log.info("failures.swept", count=swept)

    async def _enter(self, names: Names) -> list[str]:
        """Counts the attempt once it need not wait; answers in which buckets. Raises TooManyAttempts."""
        deadline = time.monotonic() + self._limits.hold_seconds
        with self._successes(names.pair) as succeeded:
            while True:
                succeeded.clear()
                wait, buckets = await self._count(names)
                if not wait:
                    return buckets
                if time.monotonic() + wait > deadline or self._held >= self._limits.held:
                    await self._refuse(wait, buckets[0])
                self._held += 1
                try:
                    with suppress(TimeoutError):  # a success meanwhile may have emptied the bucket
                        async with asyncio.timeout(wait):  # wait_for can lose a cancellation (bpo-37658)
                            await succeeded.wait()
                finally:
                    self._held -= 1

    @contextmanager
    def _successes(self, pair: str) -> Iterator[asyncio.Event]:
        """An event that each success of that pair sets."""
        event = asyncio.Event()
        self._listening.setdefault(pair, set()).add(event)
        try:
            yield event
        finally:
            self._listening[pair].discard(event)
            if not self._listening[pair]:
                del self._listening[pair]

    async def _count(self, names: Names) -> tuple[float, list[str]]:
        """Counts the attempt if it need not wait, and answers in which buckets; else how long, and because of which."""
        async with self._failures.buckets(names.all) as buckets:
            now = self._now()
            known = buckets[names.known]
            limits = names.own if known is not None and known.expires_at > now else names.own | names.shared
            wait, longest = max((limit.wait(buckets[name], now=now), name) for name, limit in limits.items())
            if wait:
                return wait, [longest]
            for name, limit in limits.items():
                buckets[name] = limit.with_one_more(buckets[name], now=now)
            return 0.0, list(limits)

    async def _forgive(self, names: Names, counted: list[str], *, right: bool) -> None:
        """Takes an attempt out of its buckets; one that was right empties the first and makes the pair known."""
        async with self._failures.buckets(names.all) as buckets:
            for name in counted:
                if (bucket := buckets[name]) is not None:
                    buckets[name] = replace(bucket, level=max(0.0, bucket.level - 1))
            if right:
                now = self._now()
                await buckets.empty(*names.own)
                buckets[names.known] = Bucket(level=0, last_at=now, expires_at=now + KNOWN_SECONDS * 1000)
        if right:
            for event in self._listening.get(names.pair, ()):
                event.set()

    async def _refuse(self, wait: float, bucket: str) -> NoReturn:
        """Raises TooManyAttempts, and says so in the audit log, which is not told the name: it may be a password."""
        kind = bucket.partition(":")[0]
        await self._audit.write_seldom(entry(Event.LOGIN_LIMITED, username="", by=kind), about=bucket)
        raise TooManyAttempts(
            "There were too many attempts that failed.",
            hint=f"Try again in {math.ceil(wait)} s, or ask an administrator to reset the password.",
            retry_after=wait,
        )

    def _names(self, username: str) -> Names:
        address, limits = network(current_call().address), self._limits
        return Names(
            known=self._name("known", username, address),
            own={self._name("pair", username, address): limits.pair},
            shared={
                self._name("username", username): limits.username,
                self._name("address", address): limits.address,
                self._name("everywhere"): limits.everywhere,
            },
        )

    def _name(self, kind: str, *parts: str) -> str:
        return f"{kind}:{hmac.digest(self._key, json.dumps([kind, *parts]).encode(), 'sha256').hex()}"

    def _now(self) -> int:
        return int(self._clock() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of an attempt's buckets, and what is asked of each; `known` says whether the shared ones count."""

    known: str
    own: dict[str, Limit]
    shared: dict[str, Limit]

    @property
    def pair(self) -> str:
        """The bucket of the username and the address."""
        return next(iter(self.own))

    @property
    def all(self) -> list[str]:
        """Every one."""
        return [self.known, *self.own, *self.shared]


def network(address: str) -> str:
    """What of an address stands for one customer: an IPv4 address, or the first 64 bits of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)
