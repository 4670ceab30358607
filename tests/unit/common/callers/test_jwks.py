"""Public keys: fetched, kept, and fetched again, without a flood."""

from __future__ import annotations

import asyncio
import time

import grpc
import jwt
import pytest

from uhm_common.callers.jwks import KeyCache, auth_service_keys
from uhm_common.errors import Unavailable
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc


class Source:
    """A key set that counts how often it was fetched, and can be slow or down."""

    def __init__(self, signer) -> None:
        self._signer = signer
        self.ids = ["first"]
        self.fetches: list[float] = []
        self.down = False
        self.begun = asyncio.Event()
        self.held: asyncio.Event | None = None

    async def __call__(self):
        self.fetches.append(time.monotonic())
        self.begun.set()
        answer = {name: jwt.PyJWK(self._signer.jwk) for name in self.ids}
        if self.held is not None:
            await self.held.wait()
        if self.down:
            raise Unavailable("down")
        return answer


@pytest.fixture
def source(signer) -> Source:
    return Source(signer)


@pytest.fixture
def keys(source) -> KeyCache:
    return KeyCache(source, interval_seconds=0.2)


async def test_keys_are_fetched_once_however_many_ask(source, keys):
    found = await asyncio.gather(*(keys.key("first") for _ in range(50)))
    assert all(found)
    assert len(source.fetches) == 1


async def test_many_unknown_ids_share_fetches(source, keys):
    await keys.key("first")
    assert await asyncio.gather(*(keys.key(f"unknown-{n}") for n in range(200))) == [None] * 200
    assert len(source.fetches) == 2
    first, second = source.fetches
    assert second - first >= 0.2


async def test_a_new_key_is_waited_for_rather_than_refused(source, keys):
    await keys.key("first")
    source.ids.append("second")
    assert await keys.key("second") is not None


async def test_a_fetch_that_has_begun_is_not_enough_for_who_comes_later(source, keys):
    """It may have read the set before the key was made."""
    source.held = asyncio.Event()
    early = asyncio.create_task(keys.key("first"))
    await source.begun.wait()
    source.ids.append("second")
    late = asyncio.create_task(keys.key("second"))
    await asyncio.sleep(0)
    source.held.set()

    assert await early is not None
    assert await late is not None
    assert len(source.fetches) == 2


async def test_known_keys_do_not_wait_for_made_up_ones(source, keys):
    await keys.key("first")
    source.held = asyncio.Event()
    attackers = [asyncio.create_task(keys.key(f"made-up-{n}")) for n in range(100)]
    await asyncio.sleep(0)

    for _ in range(100):
        assert await keys.key("first") is not None
    assert not any(attacker.done() for attacker in attackers)

    source.held.set()
    assert await asyncio.gather(*attackers) == [None] * 100


async def test_who_goes_away_does_not_take_the_fetch_along(source, keys):
    source.held = asyncio.Event()
    gone, stays = [asyncio.create_task(keys.key("first")) for _ in range(2)]
    await source.begun.wait()
    gone.cancel()
    source.held.set()
    assert await stays is not None
    assert len(source.fetches) == 1


async def test_old_keys_are_fetched_again_in_the_background(source):
    keys = KeyCache(source, kept_seconds=0, interval_seconds=0)
    await keys.key("first")
    source.ids[:] = ["second"]
    source.begun.clear()

    assert await keys.key("first") is not None  # at once, and for the last time
    await source.begun.wait()

    assert await keys.key("first") is None


async def test_known_keys_outlive_a_source_that_is_down(source):
    keys = KeyCache(source, kept_seconds=0, interval_seconds=0)
    await keys.key("first")
    source.down = True
    for _ in range(3):
        assert await keys.key("first") is not None
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await keys.key("unknown")
    assert len(source.fetches) > 2

    source.down = False
    source.ids.append("second")
    assert await keys.key("second") is not None


class Auth(auth_pb2_grpc.AuthServiceServicer):
    """An auth service that only knows its keys."""

    def __init__(self, jwk) -> None:
        self.jwk = jwk
        self.down = False

    async def GetKeys(self, request, context):  # noqa: ARG002, N802
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return auth_pb2.GetKeysResponse(keys=[auth_pb2.JsonWebKey(**self.jwk)])


async def test_the_keys_of_the_auth_service(signer, serving):
    service = Auth(signer.jwk)
    async with serving(lambda server: auth_pb2_grpc.add_AuthServiceServicer_to_server(service, server)) as channel:
        keys = auth_service_keys(channel)
        key = await keys.key("test-key")
        assert jwt.decode(signer.token(), key, audience="test-audience")["sub"] == "ann"

        service.down = True

        assert await keys.key("test-key") is key
        with pytest.raises(Unavailable, match="The auth service does not answer"):
            await keys.key("unknown")
