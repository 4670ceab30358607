"""Creating once: a call that is repeated with the same `idempotency-key` gets the answer of the first one.

Methods whose access option says so take a key in their metadata (the `Idempotency-Key` header of
draft-ietf-httpapi-idempotency-key-header). For a day, the same owner, method and key stand for one request:

- The first call claims the key and is carried out to its end, also where its client goes away meanwhile.
- While it runs, others with the same key wait a little for its answer, and are then told to come back (ABORTED).
- The answer is kept, and is what all later ones get. Another request under the same key is refused (INVALID_ARGUMENT).
- A call that failed and has made nothing is forgotten, so that it can be tried again under its key: only OK answers are
  kept.
- What a call makes is noted in the claim by the transaction that makes it. Where a process ends in the middle, its
  lease on the claim runs out, and the next call with the key finds what is there, instead of making a second one, or
  learns that it is gone. What the call itself takes back, since it fails, is no longer noted (`taken_back`).

A service puts `idempotency_table(metadata)` in its schema.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
import uuid
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc
from sqlalchemy import (
    BigInteger,
    Column,
    CursorResult,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    delete,
    insert,
    select,
    update,
)

from uhm_common.callers.access import access_of
from uhm_common.callers.identity import current_identity
from uhm_common.errors import InvalidArgument, UhmError
from uhm_common.logs import get_logger
from uhm_common.repeating import repeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_common.database import Database
    from uhm_common.vault import Vault

__all__ = [
    "METADATA_KEY",
    "Claim",
    "Idempotency",
    "IdempotencyKeys",
    "InvalidIdempotencyKey",
    "Key",
    "KeyBusy",
    "KeyReused",
    "current_claim",
    "idempotency_table",
    "taken_back",
]

log = get_logger()

METADATA_KEY = "idempotency-key"
MAX_LENGTH = 255
KEPT_SECONDS = 24 * 3600
LEASE_SECONDS = 10.0
"""After the process of a call has died, so long nobody can go on with it."""
RENEW_SECONDS = 3.0
WAIT_SECONDS = 15.0
POLL_SECONDS, RETRY_SECONDS = 0.05, 1.0
SWEEP_SECONDS = 3600.0
NS_PER_MS = 1_000_000
PURPOSE = "idempotency keys"


class InvalidIdempotencyKey(InvalidArgument):
    """A text that is no idempotency key."""


class KeyReused(InvalidArgument):
    """The key was given to another request before."""


class KeyBusy(UhmError):
    """The first call with this key is still being carried out, or lost its claim to another."""

    code = grpc.StatusCode.ABORTED


def idempotency_table(metadata: MetaData, *, name: str) -> Table:
    """The table of keys. Times are milliseconds since the epoch; `answer` is a serialised message, once there is one.

    `request` is a keyed hash: requests may have secrets in them.
    """
    return Table(
        name,
        metadata,
        Column("owner", String(64), primary_key=True),
        Column("method", String(200), primary_key=True),
        Column("key", String(MAX_LENGTH), primary_key=True),
        Column("request", LargeBinary, nullable=False),
        Column("holder", String(32), nullable=False),
        Column("lease_until", BigInteger, nullable=False),
        Column("resource", String(255), nullable=False),
        Column("answer", LargeBinary),
        Column("created_at", BigInteger, nullable=False, index=True),
    )


class Key(NamedTuple):
    """What is answered once."""

    owner: str
    method: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to carry out a request; a call without a key has one that knows nothing, and notes nothing."""

    resource: str = ""
    """What an earlier attempt at the same request has made, and noted with `made`."""
    table: Table | None = None
    held: ColumnElement[bool] | None = None

    async def made(self, session: AsyncSession, resource: str) -> None:
        """Notes what the session's transaction makes. Raises KeyBusy where the claim was lost to another call."""
        if self.table is None or self.held is None:
            return
        noted = await session.execute(update(self.table).where(self.held).values(resource=resource))
        if cast("CursorResult[Any]", noted).rowcount != 1:
            raise KeyBusy("Another call with the same idempotency key has taken over.", hint="Try again.")


async def taken_back(session: AsyncSession, table: Table, resource: str) -> None:
    """Notes that the session's transaction takes back what a call without an answer has made: it was never there."""
    noted = (table.c.resource == resource, table.c.answer.is_(None))
    await session.execute(update(table).where(*noted).values(resource=""))


_current: ContextVar[Claim] = ContextVar("claim", default=Claim())  # noqa: B039 - frozen


def current_claim() -> Claim:
    """The claim of the call that is being handled."""
    return _current.get()


class IdempotencyKeys:
    """The keys of a service's callers."""

    def __init__(self, table: Table, *, database: Database, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells the seconds since the epoch."""
        self._table = table
        self._database = database
        self._clock = clock

    async def take(self, key: Key, request: bytes) -> Claim | bytes | None:
        """A claim where the request is to be carried out now, else its answer, or None while it is carried out.

        Raises KeyReused where the key is that of another request.
        """
        now, where = self._now(), self._of(key)
        async with self._database.write() as session:
            await self._database.serialise(session, repr((self._table.name, *key)))
            await session.execute(delete(self._table).where(where, self._table.c.created_at <= now - _ms(KEPT_SECONDS)))
            row = (await session.execute(select(self._table).where(where))).one_or_none()
            if row is not None and row.request != request:
                raise KeyReused(
                    f"The idempotency key {key.key!r} was sent with another request before.",
                    hint="A new request needs a new key.",
                )
            if row is not None and (row.answer is not None or row.lease_until > now):
                return cast("bytes | None", row.answer)
            holder = uuid.uuid4().hex
            held = {"holder": holder, "lease_until": now + _ms(LEASE_SECONDS)}
            if row is None:
                new = {**key._asdict(), **held, "request": request, "resource": "", "created_at": now}
                await session.execute(insert(self._table).values(new))
            else:
                await session.execute(update(self._table).where(where).values(held))
        return Claim(
            table=self._table,
            held=and_(where, self._table.c.holder == holder),
            resource="" if row is None else row.resource,
        )

    @asynccontextmanager
    async def kept(self, claim: Claim) -> AsyncIterator[None]:
        """Nobody else gets the claim within the block."""
        beat = asyncio.create_task(self._beat(claim))
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.wait([beat])

    async def _beat(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._set(claim, lease_until=self._now() + _ms(LEASE_SECONDS))
            except Exception as error:  # noqa: BLE001 - the next one may be written
                log.warning("idempotency.not_renewed", error=repr(error))

    async def answer(self, claim: Claim, answer: bytes) -> None:
        """Keeps the answer."""
        await self._set(claim, answer=answer)

    async def release(self, claim: Claim) -> None:
        """Has the next call go on from what was noted, at once."""
        await self._set(claim, lease_until=0)

    async def forget(self, claim: Claim) -> None:
        """As if the key had never been sent; where something was made, has the next call go on from that."""
        async with self._database.write() as session:
            await session.execute(delete(self._table).where(_held(claim), self._table.c.resource == ""))
            await session.execute(update(self._table).where(_held(claim)).values(lease_until=0))

    async def sweep(self) -> int:
        """Forgets what is older than a day; answers how many keys that were."""
        async with self._database.write() as session:
            old = delete(self._table).where(self._table.c.created_at <= self._now() - _ms(KEPT_SECONDS))
            return cast("CursorResult[Any]", await session.execute(old)).rowcount

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Forgets all keys that an owner sent before that time, in nanoseconds since the epoch."""
        theirs = (self._table.c.owner == owner, self._table.c.created_at < before // NS_PER_MS)
        async with self._database.write() as session:
            await session.execute(delete(self._table).where(*theirs))

    async def run(self) -> None:
        """Sweeps now and then, until cancelled."""
        await repeat(self._sweep, seconds=SWEEP_SECONDS, failed="idempotency.not_swept")

    async def _sweep(self) -> None:
        if swept := await self.sweep():
            log.info("idempotency.swept", keys=swept)

    async def _set(self, claim: Claim, **values: Any) -> None:
        async with self._database.write() as session:
            await session.execute(update(self._table).where(_held(claim)).values(values))

    def _of(self, key: Key) -> ColumnElement[bool]:
        return and_(*(self._table.c[name] == value for name, value in key._asdict().items()))

    def _now(self) -> int:
        return _ms(self._clock())


class Idempotency(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers once what was sent with a key; it comes after the Boundary, which says who calls."""

    def __init__(self, idempotency_keys: IdempotencyKeys, *, vault: Vault) -> None:
        self._keys = idempotency_keys
        self._hash_key = vault.derive(PURPOSE)
        self._running: set[asyncio.Task[bytes]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a call that takes a key."""
        handler = cast("Any", await continuation(handler_call_details))
        method: str = handler_call_details.method
        access = access_of(method)
        if handler is None or access is None or not access.idempotency_key:
            return handler

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            async def carry_out() -> bytes:
                return cast("bytes", handler.response_serializer(await handler.unary_unary(request, context)))

            key = _key_of(context)
            if key is None:
                return await carry_out()
            return await self._once(Key(current_identity().username, method, key), self._hash(request), carry_out)

        return grpc.unary_unary_rpc_method_handler(call, request_deserializer=handler.request_deserializer)

    async def _once(self, key: Key, request: bytes, carry_out: Callable[[], Awaitable[bytes]]) -> bytes:
        until = time.monotonic() + WAIT_SECONDS
        pause = POLL_SECONDS
        while True:
            taken = await self._keys.take(key, request)
            if isinstance(taken, bytes):
                return taken
            if taken is not None:
                task = asyncio.create_task(self._hold(taken, carry_out))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                return await asyncio.shield(task)  # whose client may go away, and come again with the same key
            if time.monotonic() > until:
                raise KeyBusy(
                    f"The first call with the idempotency key {key.key!r} is still being carried out.",
                    hint="Send the same request with the same key again, in a while.",
                    retry_after=RETRY_SECONDS,
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS)

    async def _hold(self, claim: Claim, carry_out: Callable[[], Awaitable[bytes]]) -> bytes:
        """Carries out what was claimed. Where this process ends meanwhile, the lease on it runs out."""
        _current.set(claim)
        try:
            async with self._keys.kept(claim):
                answer = await carry_out()
                await self._keys.answer(claim, answer)
        except Exception as error:
            if isinstance(error, UhmError) and error.code is not grpc.StatusCode.INTERNAL:
                await self._keys.forget(claim)
            else:  # nobody knows how far it came
                await self._keys.release(claim)
            raise
        return answer

    def _hash(self, request: Any) -> bytes:
        return hmac.digest(self._hash_key, request.SerializeToString(deterministic=True), hashlib.sha256)


def _key_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The key that a call was sent with, if any. Raises InvalidIdempotencyKey."""
    sent = [value for name, value in context.invocation_metadata() or () if name == METADATA_KEY]
    if not sent:
        return None
    key = sent[0]
    if len(sent) > 1 or not isinstance(key, str) or not key.isascii() or not key.isprintable() or not key:
        raise InvalidIdempotencyKey(
            f"{sent[0][:80]!r} is not an idempotency key.",
            hint=f"Send one, of 1 to {MAX_LENGTH} printable ASCII characters, such as a UUID.",
        )
    if len(key) > MAX_LENGTH:
        raise InvalidIdempotencyKey(
            f"The idempotency key has {len(key)} characters.", hint=f"It has {MAX_LENGTH} at most."
        )
    return key


def _held(claim: Claim) -> ColumnElement[bool]:
    if claim.held is None:
        message = "a claim without a key is nobody's"
        raise ValueError(message)
    return claim.held


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
