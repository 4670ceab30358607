"""What the other services are told: what is revoked, and whether an API key is good."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import grpc
import pytest
from sqlalchemy.exc import OperationalError

from uhm_auth import revocation_feed as revocations_module
from uhm_auth.revocation_feed import RevocationFeed
from uhm_auth.servicers.verification import VerificationServicer
from uhm_auth.stores.revocations import RevocationStore, add_revocations
from uhm_common.callers.boundary import Boundary
from uhm_common.callers.identity import Identity
from uhm_common.callers.revocations import Revocation, Revocations
from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

ANN = Identity(username="ann", session_id="s", token="t")


@pytest.fixture
async def stub(feed, api_keys, verifier):
    server = grpc.aio.server(interceptors=[Boundary(verifier=verifier)])
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(VerificationServicer(feed, api_keys), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield verification_pb2_grpc.VerificationServiceStub(channel)
    await server.stop(0)


@pytest.fixture
def revoke(database):
    """Revokes what another replica would: this one has to look."""

    async def revoke(*names, now=None, seconds=100):
        now = int(time.time()) if now is None else now
        async with database.write() as transaction:
            revoked = [Revocation(id=name, expires_at=now + seconds) for name in names]
            await add_revocations(transaction, revoked, now=now)

    return revoke


def ids(message) -> list[str]:
    return [revocation.id for revocation in message.revocations]


async def test_what_was_revoked_is_told_first(stub, revoke):
    await revoke("s1", "s2")
    stream = stub.WatchRevocations(verification_pb2.WatchRevocationsRequest())
    first = await stream.read()
    assert (sorted(ids(first)), first.complete) == (["s1", "s2"], True)
    assert first.revocations[0].expire_time.seconds - time.time() == pytest.approx(100, abs=10)
    stream.cancel()


async def test_many_are_told_in_parts(stub, revoke, monkeypatch):
    monkeypatch.setattr(revocations_module, "BATCH", 2)
    await revoke("s1", "s2", "s3")
    stream = stub.WatchRevocations(verification_pb2.WatchRevocationsRequest())
    parts = [await stream.read() for _ in range(2)]
    assert [(len(ids(part)), part.complete) for part in parts] == [(2, False), (1, True)]
    stream.cancel()


async def test_what_is_revoked_later_is_told_as_it_happens(stub, revoke, feed):
    stream = stub.WatchRevocations(verification_pb2.WatchRevocationsRequest())
    assert ids(await stream.read()) == []
    await revoke("s1")
    await feed.refresh()
    assert ids(await stream.read()) == ["s1"]
    stream.cancel()


async def test_silence_is_broken_every_second(stub):
    stream = stub.WatchRevocations(verification_pb2.WatchRevocationsRequest())
    for _ in range(2):
        assert ids(await stream.read()) == []
    stream.cancel()


async def test_the_stream_ends_with_the_service(stub, feed):
    stream = stub.WatchRevocations(verification_pb2.WatchRevocationsRequest())
    await stream.read()
    feed.end()
    while await stream.read() is not grpc.aio.EOF:
        pass
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_replica_sees_what_another_revoked(feed, revoke):
    running = asyncio.create_task(feed.run())
    await revoke("s1")
    while "s1" not in feed.revocations:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    running.cancel()


async def test_a_commit_that_was_late_is_seen(feed, revoke):
    """Its time is before the last look."""
    await feed.refresh()
    await revoke("s1", now=int(time.time()) - 30)
    await feed.refresh()
    assert "s1" in feed.revocations


async def test_a_database_that_is_away_for_a_while(database, monkeypatch):
    monkeypatch.setattr(revocations_module, "POLL_SECONDS", 0.01)
    feed = RevocationFeed(store := RevocationStore(database), Revocations())
    looks = []

    async def away(*_args, **_more):
        looks.append(1)
        raise OperationalError("SELECT", {}, OSError("away"))

    monkeypatch.setattr(store, "since", away)
    running = asyncio.create_task(feed.run())
    while len(looks) < 3:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()


@pytest.mark.parametrize("order", [(50, 500), (500, 50)])
async def test_of_two_revocations_of_one_id_the_later_expiry_counts(feed, revoke, database, order):
    for seconds in order:
        await revoke("k1", seconds=seconds)
    (kept,) = await RevocationStore(database).since(0, now=0)
    assert kept.expires_at - time.time() > 400


async def test_who_watches_and_leaves_is_forgotten(feed):
    async with aclosing(feed.watch()) as watching:
        await anext(watching)
    with feed.revocations.listening() as (_, queue):
        feed.revocations.add([Revocation(id="s1", expires_at=time.time() + 9)])
        assert queue.qsize() == 1


async def test_api_keys(stub, api_keys, ann):
    made = await api_keys.create(ANN, name="ci", scopes=["machines.write", "images.read"], ttl=None)
    brief = await api_keys.create(ANN, name="ci", scopes=["images.read"], ttl=100)

    good = await stub.VerifyApiKey(verification_pb2.VerifyApiKeyRequest(key=made.text))
    assert (good.id, good.username, good.role) == (made.key.id, "ann", "user")
    assert list(good.scopes) == ["images.read", "machines.write"]
    assert not good.HasField("expire_time")
    ends = await stub.VerifyApiKey(verification_pb2.VerifyApiKeyRequest(key=brief.text))
    assert ends.expire_time.seconds == brief.key.expires_at

    for key in ("", "nonsense", made.text[:-1] + ("x" if made.text[-1] != "x" else "y")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.VerifyApiKey(verification_pb2.VerifyApiKeyRequest(key=key))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
