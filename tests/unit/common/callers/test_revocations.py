"""What is revoked: known, forgotten in time, and told to whoever must stop."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import grpc
import pytest

from uhm_common.callers import revocations as revocations_module
from uhm_common.callers.revocations import Revocation, RevocationFollower, Revocations, Revoked
from uhm_common.callers.verifier import RECONNECT_OPTIONS
from uhm_common.errors import Unavailable
from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

NOW = 1_800_000_000.0


@pytest.fixture
def hand() -> list[float]:
    """The time, for the test to move."""
    return [NOW]


@pytest.fixture
def revocations(hand) -> Revocations:
    return Revocations(clock=lambda: hand[0])


def revocation(name="s1", seconds=100.0) -> Revocation:
    return Revocation(id=name, expires_at=NOW + seconds)


async def test_what_is_revoked_is_refused(revocations):
    await revocations.check("s1")
    revocations.add([revocation()])
    with pytest.raises(Revoked, match="was ended"):
        await revocations.check("s1")
    await revocations.check("s2")


async def test_before_anything_was_told_nobody_is_let_in(monkeypatch):
    monkeypatch.setattr(revocations_module, "TOLD_SECONDS", 0.05)
    revocations = Revocations(told=False)
    with pytest.raises(Unavailable):
        await revocations.check("s1")
    monkeypatch.setattr(revocations_module, "TOLD_SECONDS", 30)
    waiting = [asyncio.create_task(revocations.check(name)) for name in ("s1", "s2")]
    await asyncio.sleep(0)
    revocations.add([Revocation(id="s1", expires_at=time.time() + 100)])
    revocations.begun()
    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [Revoked, type(None)]


def test_who_remembers_is_told_what_to_forget(revocations):
    forgotten: list[str | None] = []
    revocations.on_revoked(forgotten.append)
    revocations.add([revocation("k1"), revocation("k1"), revocation("k2")])
    revocations.begun()
    assert forgotten == ["k1", "k2", None]


def test_it_is_forgotten_when_no_token_could_be_good(revocations, hand):
    revocations.add([revocation("s1", 10), revocation("s2", 1000)])
    hand[0] += 11
    assert ("s1" in revocations, "s2" in revocations) == (False, True)
    assert len(revocations) == 2

    hand[0] += 60
    revocations.add([])

    assert len(revocations) == 1


def test_the_later_expiry_counts(revocations, hand):
    revocations.add([revocation(seconds=10), revocation(seconds=100), revocation(seconds=50)])
    hand[0] += 70
    assert "s1" in revocations


async def forever(states: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        states.append("ended")


async def test_what_runs_is_ended(revocations):
    states: list[str] = []
    calls = [asyncio.create_task(revocations.ending(name, forever(states))) for name in ("s1", "s1", "s2")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    revocations.add([revocation("s1")])

    for call in calls[:2]:
        with pytest.raises(Revoked):
            await call
    assert states == ["ended", "ended"]
    assert not calls[2].done()
    calls[2].cancel()
    with suppress(asyncio.CancelledError):
        await calls[2]
    assert states == ["ended"] * 3


async def test_what_is_revoked_already_does_not_begin(revocations):
    states: list[str] = []
    revocations.add([revocation("s1")])
    with pytest.raises(Revoked):
        await revocations.ending("s1", forever(states))


async def test_what_expires_is_ended(revocations, hand):
    for left in (0.05, 0, -10):
        states: list[str] = []
        with pytest.raises(Revoked, match="has expired"):
            await revocations.ending("k1", forever(states), expires_at=hand[0] + left)
        assert revocations.running("k1") == 0


async def test_work_that_ends_by_itself(revocations):
    async def answer():
        await asyncio.sleep(0)
        return 7

    async def fail():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    assert await revocations.ending("s1", answer()) == 7
    with pytest.raises(ZeroDivisionError):
        await revocations.ending("s1", fail())
    revocations.add([revocation("s1")])  # finds nobody to end


async def test_who_listens_gets_all_once(revocations):
    revocations.add([revocation("s1")])
    with revocations.listening() as (known, queue):
        revocations.add([revocation("s1"), revocation("s2")])
        revocations.nudge()
        assert [each.id for each in known] == ["s1"]
        assert [queue.get_nowait(), queue.get_nowait(), queue.empty()] == [revocation("s2"), None, True]
    revocations.add([revocation("s3")])
    assert queue.empty()


class Auth(verification_pb2_grpc.VerificationServiceServicer):
    """Streams what the test puts in; None ends the stream, and silence is silence."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str | None] = asyncio.Queue()
        self.streams = 0

    async def WatchRevocations(self, request, context):  # noqa: ARG002, N802
        self.streams += 1
        while (name := await self.told.get()) is not None:
            message = verification_pb2.Revocation(id=name)
            message.expire_time.FromSeconds(int(time.time()) + 100)
            yield verification_pb2.WatchRevocationsResponse(revocations=[message], complete=True)


async def until(condition) -> None:
    """Waits for what must come."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving_at(port, auth):
    server = grpc.aio.server()
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(auth, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


@asynccontextmanager
async def following(port, known):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=RECONNECT_OPTIONS) as channel:
        task = asyncio.create_task(RevocationFollower(channel, known).run())
        yield
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_stream_is_followed_and_taken_up_again(free_port, monkeypatch):
    monkeypatch.setattr(revocations_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(revocations_module, "SILENCE_SECONDS", 0.3)
    auth, known, port = Auth(), Revocations(told=False), free_port()
    begun: list[None] = []
    known.on_revoked(lambda key_id: begun.append(None) if key_id is None else None)
    async with serving_at(port, auth), following(port, known):
        auth.told.put_nowait("s1")
        await until(lambda: "s1" in known)
        await known.check("s2")
        auth.told.put_nowait(None)  # the stream ends
        await until(lambda: auth.streams == 2)
        auth.told.put_nowait("s2")
        await until(lambda: "s2" in known)
        assert len(begun) == 2  # once for each stream
        await until(lambda: auth.streams == 3)  # it was silent for too long
        assert "s1" in known


async def test_while_the_auth_service_is_down_what_is_known_stays(free_port, monkeypatch):
    monkeypatch.setattr(revocations_module, "RETRY_SECONDS", 0.01)
    known, port = Revocations(), free_port()
    async with following(port, known):  # before there is one
        async with serving_at(port, auth := Auth()):
            auth.told.put_nowait("s1")
            await until(lambda: "s1" in known)
        assert "s1" in known
        async with serving_at(port, auth := Auth()):
            auth.told.put_nowait("s2")
            await until(lambda: "s2" in known)
        assert "s1" in known
