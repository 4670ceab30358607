"""Archives are sent once, and go on where they broke off."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from uhm.client import Client
from uhm.errors import ApiError, ServerUnreachable
from uhm.uploads import SMALL, upload

SIZE = 2 * SMALL
PIECES = [bytes([number]) * 1000 for number in range(200)] * (SIZE // 200_000 + 1)
CONTENT = b"".join(PIECES)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
HAVE = f"GET /api/v1/contexts/{DIGEST.replace(':', '%3A')}"
SEND = "POST /api/v1/contexts"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("uhm.uploads.PAUSE_SECONDS", 0)


def pieces():
    return iter(PIECES)


def test_a_small_one_is_sent_at_once(server):
    server.answers[SEND] = {"id": "c"}
    assert upload(Client(server.url), lambda: iter([b"ab", b"", b"c"])) == {"id": "c"}
    (request,) = server.requests
    assert request.body == b"abc"
    assert request.query == {"digest": f"sha256:{hashlib.sha256(b'abc').hexdigest()}", "offset": "0"}


def test_what_the_server_has_is_not_sent(server):
    server.answers[HAVE] = {"id": "c", "complete": True}
    assert upload(Client(server.url), pieces)["id"] == "c"
    assert len(server.requests) == 1


@pytest.mark.parametrize("there", [0, 1, 1000, 1234, len(CONTENT) - 1])
def test_the_rest_is_sent(server, there):
    server.answers |= {HAVE: {"received_bytes": str(there)}, SEND: {"id": "c"}}
    assert upload(Client(server.url), pieces) == {"id": "c"}
    assert server.requests[1].body == CONTENT[there:]
    assert server.requests[1].query == {"digest": DIGEST, "offset": str(there)}


def test_a_connection_that_breaks_is_made_again(server, monkeypatch):
    received = itertools.count(1)
    server.answers |= {HAVE: lambda _: {"received_bytes": str(next(received) * 1000)}, SEND: {"id": "c"}}
    client, broken = Client(server.url), [True, True, False]
    sending = client.upload

    def breaking(*args, **kwargs):
        if broken.pop(0):
            raise ServerUnreachable("cut")
        return sending(*args, **kwargs)

    monkeypatch.setattr(client, "upload", breaking)
    assert upload(client, pieces) == {"id": "c"}
    assert server.requests[-1].body == CONTENT[3000:]
    broken[:] = [True] * 9
    with pytest.raises(ServerUnreachable):
        upload(client, pieces)


def test_a_refusal_is_final(server):
    server.answers[HAVE] = {}
    with pytest.raises(ApiError):
        upload(Client(server.url), pieces)
    assert len(server.requests) == 2
