"""A call that is repeated with the same idempotency key is answered once, whatever happens on the way."""
# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from types import SimpleNamespace

import grpc
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from uhm_common import idempotency
from uhm_common.callers.boundary import Boundary
from uhm_common.callers.identity import Identity, set_current_identity
from uhm_common.database import Database
from uhm_common.errors import InternalError, NotFound
from uhm_common.idempotency import (
    KEPT_SECONDS,
    LEASE_SECONDS,
    Idempotency,
    IdempotencyKeys,
    Key,
    current_claim,
    idempotency_table,
    taken_back,
)
from uhm_common.vault import Vault
from uhmalguhm.builder.v1 import registry_pb2, registry_pb2_grpc

METADATA = MetaData()
IDEMPOTENCY_KEYS = idempotency_table(METADATA, name="idempotency_keys")
THINGS = Table("things", METADATA, Column("id", Integer, primary_key=True), Column("host", String(80)))
METHOD = "/uhmalguhm.builder.v1.RegistryService/CreateRegistry"


class Registries(registry_pb2_grpc.RegistryServiceServicer):
    """Makes a thing for each call, and says the number of the thing; does first what the test says."""

    def __init__(self, database):
        self.database = database
        self.calls = count(1)
        self.before = self.after = self.nothing

    async def nothing(self):
        pass

    async def CreateRegistry(self, request, context):
        next(self.calls)
        claim = current_claim()
        await self.before()
        made = claim.resource
        if not made:
            async with self.database.write() as session:
                added = await session.execute(insert(THINGS).values(host=request.registry.host).returning(THINGS.c.id))
                made = str(added.scalar_one())
                await claim.made(session, made)
        await self.after()
        return answer(made)

    async def GetRegistry(self, request, context):
        next(self.calls)
        return registry_pb2.GetRegistryResponse()


class Callers(grpc.aio.ServerInterceptor):
    """Says who calls, as the boundary does with a verifier."""

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)

        async def call(request, context):
            user = dict(context.invocation_metadata())["user"]
            set_current_identity(Identity(username=user, session_id="s", token="t"))
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def answer(number):
    return registry_pb2.CreateRegistryResponse(registry=registry_pb2.Registry(host=str(number)))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with database.write() as session:
        await session.run_sync(lambda sync: METADATA.create_all(sync.connection()))
    yield database
    await database.close()


@pytest.fixture
def idempotency_keys(database, clock):
    return IdempotencyKeys(IDEMPOTENCY_KEYS, database=database, clock=clock)


@pytest.fixture
def registries(database):
    return Registries(database)


@pytest.fixture
def open_client(serving, idempotency_keys, registries):
    """A context manager that serves, as one process of several would, and gives what creates."""

    @asynccontextmanager
    async def open_client():
        interceptors = [Boundary(verifier=None), Callers(), Idempotency(idempotency_keys, vault=Vault(bytes(32)))]
        add = partial(registry_pb2_grpc.add_RegistryServiceServicer_to_server, registries)
        async with serving(add, interceptors=interceptors) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)

            def create(key="k", *, host="reg.example", user="alice", **options):
                request = registry_pb2.CreateRegistryRequest(registry=registry_pb2.Registry(host=host, password="p"))
                metadata = [("user", user)] + ([("idempotency-key", key)] if key is not None else [])
                return stub.CreateRegistry(request, metadata=metadata, **options)

            create.stub = stub
            yield create

    return open_client


@pytest.fixture
async def create(open_client):
    async with open_client() as create:
        yield create


@pytest.fixture
def things(database):
    async def things():
        async with database.read() as session:
            return (await session.scalars(select(func.count()).select_from(THINGS))).one()

    return things


@pytest.fixture
def keys(database):
    async def keys():
        async with database.read() as session:
            return list((await session.scalars(select(IDEMPOTENCY_KEYS.c.key))).all())

    return keys


async def refused(call, code, *, saying):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    assert saying in caught.value.details()


async def test_the_same_key_gets_the_same_answer(create, things):
    first = await create()

    assert await create() == first == answer(1)
    assert await things() == 1


async def test_without_a_key_every_call_counts(create, things, keys):
    assert [await create(None), await create(None)] == [answer(1), answer(2)]
    assert await keys() == []


@pytest.mark.parametrize("other", [{"key": "l"}, {"user": "bob"}])
async def test_keys_are_their_owners(create, other):
    assert await create() == answer(1)
    assert await create(**other) == answer(2)


async def test_a_method_that_takes_no_key_ignores_it(create, registries, keys):
    metadata = [("user", "alice"), ("idempotency-key", "k")]
    for _ in range(2):
        await create.stub.GetRegistry(registry_pb2.GetRegistryRequest(host="x"), metadata=metadata)

    assert next(registries.calls) == 3
    assert await keys() == []


async def test_another_request_with_the_key_is_refused(create, things):
    await create()

    await refused(create(host="other.example"), grpc.StatusCode.INVALID_ARGUMENT, saying="another request")
    assert await things() == 1


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_what_is_no_key_is_refused(create, registries, key):
    await refused(create(key), grpc.StatusCode.INVALID_ARGUMENT, saying="idempotency key")
    assert next(registries.calls) == 1


@pytest.mark.parametrize("key", ["a\tb", "ü", b"k"])
def test_what_grpc_may_let_pass_is_refused_too(key):
    context = SimpleNamespace(invocation_metadata=lambda: [("idempotency-key", key)])

    with pytest.raises(idempotency.InvalidIdempotencyKey):
        idempotency._key_of(context)


async def test_two_keys_are_one_too_many(create):
    request = registry_pb2.CreateRegistryRequest()
    metadata = [("user", "alice"), ("idempotency-key", "k"), ("idempotency-key", "l")]

    call = create.stub.CreateRegistry(request, metadata=metadata)
    await refused(call, grpc.StatusCode.INVALID_ARGUMENT, saying="Send one")


@pytest.mark.parametrize("key", ["k", "k" * 255, '"8e03978e-40d5-43e8-bc93-6894a57f9324"', "~ !"])
async def test_any_printable_text_is_a_key(create, keys, key):
    await create(key)

    assert await keys() == [key]


async def test_many_at_once_make_one(create, things, registries):
    answers = await asyncio.gather(*(create() for _ in range(20)))

    assert {each.registry.host for each in answers} == {"1"}
    assert await things() == 1
    assert next(registries.calls) == 2


async def test_one_that_runs_too_long_is_to_be_asked_for_again(create, registries, monkeypatch, things):
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 0.0)
    running, go_on = asyncio.Event(), asyncio.Event()

    async def before():
        running.set()
        await go_on.wait()

    registries.before = before
    first = asyncio.ensure_future(create())
    await running.wait()
    await refused(create(), grpc.StatusCode.ABORTED, saying="still being carried out")
    go_on.set()

    assert await first == await create()
    assert await things() == 1


async def test_a_client_that_goes_away_finds_its_answer_when_it_comes_back(create, registries, things):
    running, go_on = asyncio.Event(), asyncio.Event()

    async def before():
        running.set()
        await go_on.wait()

    registries.before = before
    first = create()
    await running.wait()
    first.cancel()
    again = asyncio.ensure_future(create())
    await asyncio.sleep(0)
    go_on.set()

    assert await again == answer(1)
    assert await things() == 1
    assert next(registries.calls) == 2


async def test_what_failed_is_forgotten(create, registries, keys):
    async def fail():
        raise NotFound("There is none.")

    registries.before = fail
    await refused(create(), grpc.StatusCode.NOT_FOUND, saying="There is none")
    assert await keys() == []
    registries.before = registries.nothing

    assert await create(host="corrected.example") == answer(1)


@pytest.mark.parametrize("error", [ZeroDivisionError(), InternalError("The database is gone.")])
async def test_what_was_made_before_a_fault_is_found_again(create, registries, things, error):
    async def fault():
        raise error

    registries.after = fault
    await refused(create(), grpc.StatusCode.INTERNAL, saying="our side")
    registries.after = registries.nothing

    assert await create() == answer(1)
    assert await things() == 1


async def test_a_failure_after_something_was_made_does_not_forget_it(create, registries, things):
    async def fail():
        raise NotFound("It went away again.")

    registries.after = fail
    for _ in range(2):
        await refused(create(), grpc.StatusCode.NOT_FOUND, saying="went away")
    registries.after = registries.nothing

    assert await create() == answer(1)
    assert await things() == 1


@pytest.mark.parametrize("error", [NotFound("It did not start."), InternalError("The database is gone.")])
async def test_what_a_call_took_back_is_made_again(create, registries, database, things, error):
    async def fail():
        async with database.write() as session:
            await session.execute(THINGS.delete())
            await taken_back(session, IDEMPOTENCY_KEYS, "1")
        raise error

    registries.after = fail
    await refused(create(), error.code, saying="")
    registries.after = registries.nothing

    await create()
    assert await things() == 1


async def test_what_was_answered_stays_answered_when_it_is_gone(create, database, things):
    await create()
    async with database.write() as session:
        await session.execute(THINGS.delete())
        await taken_back(session, IDEMPOTENCY_KEYS, "1")

    assert await create() == answer(1)
    assert await things() == 0


async def test_an_owners_keys_go_up_to_a_time(idempotency_keys, create, clock, keys):
    await create("old")
    before = int(clock.now * 1e9) + 1_000_000
    clock.now += 1
    await create("new")
    await create("other", user="bob")

    await idempotency_keys.delete_all(owner="alice", before=before)
    assert sorted(await keys()) == ["new", "other"]


@pytest.mark.parametrize("made", [False, True])
async def test_a_process_that_died_leaves_its_claim_to_the_next(
    idempotency_keys, clock, create, database, made, things
):
    """The claim of one that ended in the middle: it is never answered, renewed or released."""
    request = registry_pb2.CreateRegistryRequest(registry=registry_pb2.Registry(host="reg.example", password="p"))
    hashed = Idempotency(idempotency_keys, vault=Vault(bytes(32)))._hash(request)
    taken = await idempotency_keys.take(Key("alice", METHOD, "k"), hashed)
    if made:
        async with database.write() as session:
            await session.execute(insert(THINGS).values(host="reg.example"))
            await taken.made(session, "1")
    clock.now += LEASE_SECONDS

    assert await create() == answer(1)
    assert await things() == 1


async def test_one_that_lost_its_claim_makes_nothing(idempotency_keys, clock, database, things):
    key = Key("alice", METHOD, "k")
    slow = await idempotency_keys.take(key, b"hash")
    clock.now += LEASE_SECONDS
    await idempotency_keys.take(key, b"hash")

    async def make():
        async with database.write() as session:
            await session.execute(insert(THINGS).values(host="reg.example"))
            await slow.made(session, "1")

    with pytest.raises(idempotency.KeyBusy):
        await make()
    assert await things() == 0
    await idempotency_keys.answer(slow, b"late")
    assert await idempotency_keys.take(key, b"hash") is None


async def test_a_claim_is_held_for_as_long_as_it_takes(idempotency_keys, clock, monkeypatch):
    monkeypatch.setattr(idempotency, "RENEW_SECONDS", 0.001)
    key = Key("alice", METHOD, "k")
    claim = await idempotency_keys.take(key, b"hash")
    async with idempotency_keys.kept(claim):
        for _ in range(3):
            clock.now += LEASE_SECONDS / 2
            await renewed(idempotency_keys, claim, clock)
        assert await idempotency_keys.take(key, b"hash") is None


async def test_a_key_is_kept_for_a_day(create, clock, idempotency_keys, keys):
    await create()
    clock.now += KEPT_SECONDS - 1
    assert await create() == answer(1)
    assert await idempotency_keys.sweep() == 0
    clock.now += 1
    assert await create(host="other.example") == answer(2)
    clock.now += KEPT_SECONDS

    assert await idempotency_keys.sweep() == 1
    assert await keys() == []


async def test_nothing_of_the_request_is_in_the_database(create, database):
    await create()

    async with database.read() as session:
        row = (await session.execute(select(IDEMPOTENCY_KEYS))).one()
    assert b"reg.example" not in row.request
    assert len(row.request) == 32


async def test_replicas_share_their_keys(open_client, things):
    async with open_client() as one, open_client() as other:
        answers = await asyncio.gather(*(create() for create in (one, other) * 5))

    assert {each.registry.host for each in answers} == {"1"}
    assert await things() == 1


async def renewed(idempotency_keys, claim, clock):
    """Waits until the claim's lease is as long as it can be."""
    wanted = int((clock.now + LEASE_SECONDS) * 1000)
    while True:
        async with idempotency_keys._database.read() as session:
            if (await session.scalars(select(IDEMPOTENCY_KEYS.c.lease_until).where(claim.held))).one() == wanted:
                return
        await asyncio.sleep(0.001)


async def test_a_sweep_that_fails_is_done_again(idempotency_keys, monkeypatch):
    monkeypatch.setattr(idempotency, "SWEEP_SECONDS", 0.0)
    happens, again = iter([SQLAlchemyError("The database is gone."), 1]), asyncio.Event()

    async def sweep():
        if isinstance(happened := next(happens, 0), Exception):
            raise happened
        again.set()
        return happened

    monkeypatch.setattr(idempotency_keys, "sweep", sweep)
    running = asyncio.create_task(idempotency_keys.run())
    await asyncio.wait_for(again.wait(), 10)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
