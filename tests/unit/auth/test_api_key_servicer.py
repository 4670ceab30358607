"""The gRPC face of API keys: what of a key is told, and by which method."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from uhm_auth.api_keys import NewKey
from uhm_auth.servicers.api_keys import ApiKeyServicer
from uhm_auth.stores.api_keys import ApiKey
from uhm_common.callers.access import access_of
from uhm_common.callers.identity import Identity, set_current_identity
from uhm_common.errors import InvalidArgument
from uhmalguhm.auth.v1 import api_key_pb2

BOB = Identity(username="bob", session_id="s1", token="t")
KEY = ApiKey(id="0" * 16, name="ci", scopes=("images.read",), secret_hash="h", created_at=100)
USED = ApiKey(id="1" * 16, name="cd", scopes=(), secret_hash="h", created_at=100, used_at=150, expires_at=200)


class Keys:
    """Notes what it is asked, and answers what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    async def create(self, owner, *, name, scopes, ttl):
        self.asked.append((owner, name, list(scopes), ttl))
        return NewKey(key=KEY, text="uhm_secret")

    async def page(self, owner, *, size, token):
        self.asked.append((owner, size, token))
        return [KEY, USED], "next"

    async def delete(self, owner, key_id):
        self.asked.append((owner, key_id))


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def servicer(keys) -> ApiKeyServicer:
    return ApiKeyServicer(keys)


@pytest.mark.parametrize(("ttl", "asked"), [(None, None), (Duration(), 0), (Duration(seconds=60, nanos=5), 60)])
async def test_making(servicer, keys, ttl, asked):
    set_current_identity(BOB)
    request = api_key_pb2.CreateApiKeyRequest(name="ci", scopes=["images.read"], ttl=ttl)
    answer = await servicer.CreateApiKey(request, None)
    assert keys.asked == [(BOB, "ci", ["images.read"], asked)]
    assert answer.key == "uhm_secret"
    assert answer.api_key == api_key_pb2.ApiKey(
        id="0" * 16, name="ci", scopes=["images.read"], create_time=Timestamp(seconds=100)
    )


async def test_listing(servicer, keys):
    set_current_identity(BOB)
    answer = await servicer.ListApiKeys(api_key_pb2.ListApiKeysRequest(page_token="t"), None)
    assert keys.asked == [(BOB, 50, "t")]
    assert answer.next_page_token == "next"
    assert [key.name for key in answer.api_keys] == ["ci", "cd"]
    assert [key.HasField("use_time") for key in answer.api_keys] == [False, True]
    assert (answer.api_keys[1].use_time.seconds, answer.api_keys[1].expire_time.seconds) == (150, 200)
    assert "secret" not in str(answer)


async def test_a_page_cannot_be_negative(servicer):
    set_current_identity(BOB)
    with pytest.raises(InvalidArgument):
        await servicer.ListApiKeys(api_key_pb2.ListApiKeysRequest(page_size=-1), None)


async def test_deleting(servicer, keys):
    set_current_identity(BOB)
    await servicer.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(id="x"), None)
    assert keys.asked == [(BOB, "x")]


@pytest.mark.parametrize("method", ["CreateApiKey", "ListApiKeys", "DeleteApiKey"])
def test_no_api_key_makes_or_ends_keys(method):
    """Whoever has stolen one cannot make themselves another."""
    access = access_of(f"/uhmalguhm.auth.v1.ApiKeyService/{method}")
    assert (access.public, access.scope) == (False, "")
