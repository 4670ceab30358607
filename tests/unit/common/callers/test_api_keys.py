"""What the auth service says of API keys, kept for a minute."""

from __future__ import annotations

import time

import grpc
import pytest

from uhm_common.callers import api_keys as api_keys_module
from uhm_common.callers.api_keys import RemoteApiKeys, VerifiedKey, is_api_key
from uhm_common.callers.revocations import Revocation, Revocations
from uhm_common.errors import Unauthenticated, Unavailable
from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

KEY = f"uhm_{'0' * 16}_{'x' * 43}"
OTHER = f"uhm_{'1' * 16}_{'x' * 43}"


class Auth(verification_pb2_grpc.VerificationServiceServicer):
    """An auth service that knows one key."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: grpc.StatusCode | None = None
        self.expires_at = 0

    async def VerifyApiKey(self, request, context):  # noqa: N802
        self.asked.append(request.key)
        if self.failure is not None:
            await context.abort(self.failure, "That key is not good.")
        answer = verification_pb2.VerifyApiKeyResponse(
            id="0" * 16, username="ann", role="user", scopes=["images.read", "machines.write"]
        )
        if self.expires_at:
            answer.expire_time.FromSeconds(self.expires_at)
        return answer


@pytest.fixture
def hand() -> list[float]:
    return [time.time()]


@pytest.fixture
def revocations(hand) -> Revocations:
    return Revocations(clock=lambda: hand[0])


@pytest.fixture
async def auth(serving, hand, revocations):
    service = Auth()

    def add(server):
        verification_pb2_grpc.add_VerificationServiceServicer_to_server(service, server)

    async with serving(add) as channel:
        yield service, RemoteApiKeys(channel, revocations, clock=lambda: hand[0])


@pytest.mark.parametrize(
    ("token", "meant"), [(KEY, True), ("uhm_", True), ("eyJhbGciOiJFZERTQSJ9.e30.x", False), ("", False)]
)
def test_what_is_meant_as_an_api_key(token, meant):
    assert is_api_key(token) is meant


async def test_a_good_key_is_asked_for_once_a_minute(auth, hand):
    service, keys = auth
    for _ in range(3):
        assert await keys.verify(KEY) == VerifiedKey(
            id="0" * 16,
            username="ann",
            role="user",
            scopes=frozenset({"images.read", "machines.write"}),
            expires_at=None,
        )
    assert service.asked == [KEY]

    hand[0] += 61
    await keys.verify(KEY)

    assert service.asked == [KEY, KEY]


async def test_a_key_is_not_kept_longer_than_it_is_good(auth, hand):
    service, keys = auth
    service.expires_at = int(hand[0]) + 10
    await keys.verify(KEY)
    hand[0] += 11
    service.failure = grpc.StatusCode.UNAUTHENTICATED

    with pytest.raises(Unauthenticated, match="That key is not good"):
        await keys.verify(KEY)


@pytest.mark.parametrize(
    "key",
    ["uhm_", "uhm_1", KEY + "x", KEY.upper(), KEY.replace("x", "é"), "uhm_" + "x" * 100_000],
    ids=lambda key: key[:8],
)
async def test_what_cannot_be_a_key_is_not_asked_for(auth, key):
    service, keys = auth
    with pytest.raises(Unauthenticated):
        await keys.verify(key)
    assert service.asked == []


async def test_while_the_auth_service_is_down(auth, hand):
    service, keys = auth
    await keys.verify(KEY)
    service.failure = grpc.StatusCode.UNAVAILABLE

    assert (await keys.verify(KEY)).username == "ann"
    with pytest.raises(Unavailable, match="API keys cannot be checked"):
        await keys.verify(OTHER)
    hand[0] += 61
    with pytest.raises(Unavailable):
        await keys.verify(KEY)


@pytest.mark.parametrize("missed", [False, True])
async def test_what_is_known_of_a_key_is_forgotten_with_it(auth, hand, revocations, missed):
    """Also by a service that was not told, because it could not be reached: it is told that it missed something."""
    service, keys = auth
    await keys.verify(KEY)
    if missed:
        revocations.begun()
    else:
        revocations.add([Revocation(id="other", expires_at=hand[0] + 15)])
        await keys.verify(KEY)
        assert service.asked == [KEY]
        revocations.add([Revocation(id="0" * 16, expires_at=hand[0] + 15)])
    hand[0] += 16
    await keys.verify(KEY)
    assert service.asked == [KEY, KEY]


async def test_an_answer_that_may_be_older_than_a_revocation_is_not_kept(auth, hand, revocations):
    service, keys = auth
    revocations.add([Revocation(id="0" * 16, expires_at=hand[0] + 15)])
    await keys.verify(KEY)
    hand[0] += 16
    await keys.verify(KEY)
    assert service.asked == [KEY, KEY]


async def test_the_cache_is_bounded(auth, monkeypatch):
    monkeypatch.setattr(api_keys_module, "CACHED_KEYS", 1)
    service, keys = auth
    for key in (KEY, OTHER, OTHER, KEY):
        await keys.verify(key)
    assert service.asked == [KEY, OTHER, KEY]
