"""The client: the server's errors, streams, pages, and tokens that are renewed."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.unit.cli.conftest import Refusal, Silence, Stream
from uhm import client as client_module
from uhm.client import Client, connect, segment, server_url
from uhm.credentials import Credentials, CredentialStore, expires_within
from uhm.errors import ApiError, CommandError, ConnectionLost, ServerUnreachable
from uhm.session import FixedToken

REFUSED = Refusal(401, 16, "The token has expired.")


def token(*, seconds: float, mark: str = "") -> str:
    payload = json.dumps({"exp": time.time() + seconds, "mark": mark}).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.c2ln"


@pytest.fixture
def store(server):
    return CredentialStore.default()


def log_in(server, store, access: str) -> None:
    with store.lock():
        store.save(server.url, Credentials(username="me", access_token=access, refresh_token="refresh-1"))


def accept_only(server, valid: str) -> None:
    server.answers["GET /api/v1/user"] = lambda request: {"username": "me"} if request.token == valid else REFUSED


def test_an_error_is_the_servers_sentence(server):
    server.answers["GET /x"] = Refusal(409, 6, "The name is taken.")
    with pytest.raises(ApiError, match="The name is taken") as caught:
        Client(server.url).get("/x")
    assert (caught.value.code, caught.value.status) == (6, 409)
    assert caught.value.document() == {"error": {"code": 6, "message": "The name is taken."}}


def test_nobody_there_says_what_to_do():
    with pytest.raises(ServerUnreachable, match="`uhm up`"):
        Client("http://127.0.0.1:9").get("/x")


def test_somebody_else_there(server):
    server.answers["GET /x"] = ["not", "an", "object"]
    with pytest.raises(CommandError, match="no JSON object"):
        Client(server.url).get("/x")


def test_pages_are_joined(server):
    pages = {"": {"images": [{"id": "1"}], "next_page_token": "more"}, "more": {"images": [{"id": "2"}]}}
    server.answers["GET /api/v1/images"] = lambda request: pages[request.query.get("page_token", "")]
    assert Client(server.url).pages("/api/v1/images", field="images") == [{"id": "1"}, {"id": "2"}]


def test_parameters_that_say_nothing_are_left_out(server):
    server.answers["GET /x"] = {}
    Client(server.url).get("/x", all=True, follow=False, tail=None, reference="", grace=0)
    assert server.requests[0].query == {"all": "true", "grace": "0"}


def test_streams(server):
    server.answers["GET /x:watch"] = Stream([{"n": 1}, {"n": 2}])
    with Client(server.url).stream("/x:watch") as messages:
        assert list(messages) == [{"n": 1}, {"n": 2}]


def test_a_stream_that_ends_badly(server):
    server.answers["GET /x:watch"] = Stream([{"n": 1}, Refusal(0, 14, "The builder is gone.")])
    seen: list[dict] = []
    with pytest.raises(ApiError, match="builder is gone"), Client(server.url).stream("/x:watch") as messages:
        seen.extend(messages)
    assert seen == [{"n": 1}]


def test_a_stream_that_is_refused(server):
    with pytest.raises(ApiError, match="There is no"), Client(server.url).stream("/y"):
        pass


def test_an_upload_is_sent_in_pieces(server):
    server.answers["POST /api/v1/contexts"] = {"id": "c"}
    Client(server.url).upload("/api/v1/contexts", lambda: iter([b"ab", b"", b"cd"]), content_type="application/x-tar")
    assert server.requests[0].body == b"abcd"


def test_names_are_one_segment():
    assert segment("ghcr.io/owner/name:tag@sha256:ab") == "ghcr.io%2Fowner%2Fname%3Atag%40sha256%3Aab"


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://x", "/x"])
def test_no_url(monkeypatch, url):
    monkeypatch.setenv("UHM_URL", url)
    with pytest.raises(CommandError, match="UHM_URL"):
        server_url()


def test_the_environments_token_is_never_renewed(server, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", "fixed")
    accept_only(server, "other")
    with pytest.raises(ApiError, match="expired"):
        connect().get("/api/v1/user")
    assert [request.token for request in server.requests] == ["fixed"]


def test_what_a_shell_adds_to_the_environments_token_is_left_out(server, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", " fixed\r\n")
    accept_only(server, "fixed")
    assert connect().get("/api/v1/user") == {"username": "me"}


def test_an_empty_token_is_none(server, store, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", "\n")
    log_in(server, store, "saved")
    accept_only(server, "saved")
    assert connect().get("/api/v1/user") == {"username": "me"}


@pytest.mark.parametrize("bad", ["secret\nx", "secret\x7f", "secrét"])
def test_what_can_be_no_token_is_wrong_usage_and_not_shown(server, uhm, monkeypatch, bad):
    monkeypatch.setenv("UHM_TOKEN", bad)
    done = uhm("whoami")
    assert (done.code, server.requests) == (2, [])
    assert "UHM_TOKEN" in done.err
    assert "secr" not in done.err


def test_what_http_cannot_say_is_neither_shown_nor_tried_again(server, at_once):
    with pytest.raises(CommandError, match="not sent") as caught:
        Client(server.url, tokens=FixedToken("secret\nx")).create("/api/v1/images")
    assert not isinstance(caught.value, ServerUnreachable)
    assert "secret" not in str(caught.value)


def test_a_refused_token_is_renewed_and_kept(server, store):
    old, new = token(seconds=900, mark="old"), token(seconds=900, mark="new")
    log_in(server, store, old)
    accept_only(server, new)
    server.answers["POST /api/v1/token/refresh"] = {"access_token": new, "refresh_token": "refresh-2"}
    assert connect().get("/api/v1/user") == {"username": "me"}
    assert server.asked("POST /api/v1/token/refresh")[0].token == "refresh-1"
    assert store.load(server.url) == Credentials(username="me", access_token=new, refresh_token="refresh-2")
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_a_token_that_ends_soon_is_renewed_before_it_is_sent(server, store):
    new = token(seconds=900)
    log_in(server, store, token(seconds=5))
    accept_only(server, new)
    server.answers["POST /api/v1/token/refresh"] = {"access_token": new}
    connect().get("/api/v1/user")
    assert len(server.asked("GET /api/v1/user")) == 1
    assert store.load(server.url).refresh_token == "refresh-1"


def test_a_session_that_has_ended_is_told(server, store):
    log_in(server, store, token(seconds=900))
    accept_only(server, "none")
    server.answers["POST /api/v1/token/refresh"] = Refusal(401, 16, "The session was revoked.")
    with pytest.raises(ApiError, match="expired"):
        connect().get("/api/v1/user")


def test_two_at_once_use_the_refresh_token_once(server, store):
    old, new = token(seconds=900, mark="old"), token(seconds=900, mark="new")
    log_in(server, store, old)
    accept_only(server, new)
    used = []

    def refresh(request):
        used.append(request.token)
        time.sleep(0.1)
        return {"access_token": new, "refresh_token": "refresh-2"}

    server.answers["POST /api/v1/token/refresh"] = refresh
    clients = [connect() for _ in range(4)]
    threads = [threading.Thread(target=client.get, args=("/api/v1/user",)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used == ["refresh-1"]
    assert len([request for request in server.asked("GET /api/v1/user") if request.token == new]) == 4


def test_an_upload_is_made_again_with_the_new_token(server, store):
    old, new = token(seconds=900, mark="old"), token(seconds=900, mark="new")
    log_in(server, store, old)
    server.answers["POST /up"] = lambda request: {"size": len(request.body)} if request.token == new else REFUSED
    server.answers["POST /api/v1/token/refresh"] = {"access_token": new}
    answer = connect().upload("/up", lambda: iter([b"abc"]), content_type="application/x-tar")
    assert answer == {"size": 3}


@pytest.mark.parametrize("text", ["", "abc", "a.b.c", "e30.e30.x"])
def test_a_token_that_cannot_be_read_does_not_end_soon(text):
    assert not expires_within(text, seconds=1e9)


def test_a_broken_file_is_nobody(store, server):
    store.path.parent.mkdir(parents=True)
    store.path.write_text("{")
    assert store.load(server.url) is None


@pytest.fixture
def at_once(monkeypatch):
    """What is sent again is sent without a pause."""
    monkeypatch.setattr(client_module, "RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(client_module, "REFRESH_PAUSES", (0.0, 0.0))


def in_turn(*answers):
    left = list(answers)
    return lambda _request: left.pop(0)


LOST = [
    Silence(),
    Refusal(503, 14, "The builder does not answer."),
    Refusal(409, 10, "It is being carried out.", "KEY"),
]


@pytest.mark.parametrize("lost", LOST)
def test_what_is_made_is_asked_for_again_with_the_same_key(server, at_once, lost):
    server.answers["POST /api/v1/images"] = in_turn(lost, lost, {"id": "1"})
    assert Client(server.url).create("/api/v1/images", {"image": "nginx"}) == {"id": "1"}
    first, *others = server.asked("POST /api/v1/images")
    assert len(first.key) == 36
    assert [(other.key, other.body) for other in others] == [(first.key, first.body)] * 2


@pytest.mark.parametrize("lost", LOST[1:])
def test_a_wait_is_told_once(server, at_once, lost):
    notes: list[str] = []
    server.answers["POST /api/v1/images"] = in_turn(lost, lost, {"id": "1"})
    Client(server.url, note=notes.append).create("/api/v1/images")
    assert notes == [f"{lost.message} Asking again for a while."]


def test_the_token_is_renewed_before_anything_is_sent_and_not_again(server, store, at_once):
    log_in(server, store, token(seconds=5))
    server.answers["POST /api/v1/token/refresh"] = Refusal(503, 14, "The auth service does not answer.")
    with pytest.raises(ConnectionLost, match=r"auth service does not answer\.$"):
        connect().create("/api/v1/images")
    assert [request.path for request in server.requests] == ["/api/v1/token/refresh"] * 3


def test_a_new_token_does_not_begin_the_wait_anew(server, store, at_once):
    old, new = token(seconds=900, mark="old"), token(seconds=900, mark="new")
    log_in(server, store, old)
    server.answers["POST /api/v1/images"] = in_turn(Silence(), REFUSED, Silence())
    server.answers["POST /api/v1/token/refresh"] = {"access_token": new}
    with pytest.raises(ConnectionLost):
        connect().create("/api/v1/images")
    assert [request.token for request in server.asked("POST /api/v1/images")] == [old, old, new]


def test_each_thing_that_is_made_has_its_own_key(server):
    server.answers["POST /api/v1/images"] = {"id": "1"}
    for _ in range(2):
        Client(server.url).create("/api/v1/images")
    assert len({request.key for request in server.requests}) == 2


def test_in_the_end_the_loss_is_told(server, at_once):
    server.answers["POST /api/v1/images"] = Silence()
    with pytest.raises(ConnectionLost, match="broke off"):
        Client(server.url).create("/api/v1/images")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "refused", [Refusal(503, 14, "The guest did not come up.", "GUEST_FAILED"), Refusal(400, 3, "No.", "INVALID")]
)
def test_what_a_service_refuses_is_not_asked_again(server, at_once, refused):
    server.answers["POST /api/v1/machines"] = refused
    with pytest.raises(ApiError, match=refused.message):
        Client(server.url).create("/api/v1/machines")
    assert len(server.requests) == 1


def test_what_is_not_made_once_is_not_sent_twice(server, at_once):
    server.answers["POST /x"] = Silence()
    with pytest.raises(ConnectionLost, match="may have been carried out"):
        Client(server.url).post("/x")
    assert len(server.requests) == 1


def test_of_a_question_nothing_can_have_been_carried_out(server):
    server.answers["GET /x"] = Silence()
    with pytest.raises(ConnectionLost) as caught:
        Client(server.url).get("/x")
    assert "carried out" not in str(caught.value)


def test_a_refresh_whose_answer_was_lost_is_sent_again(server, store, at_once):
    old, new = token(seconds=900, mark="old"), token(seconds=900, mark="new")
    log_in(server, store, old)
    accept_only(server, new)
    renewed = {"access_token": new, "refresh_token": "refresh-2"}
    server.answers["POST /api/v1/token/refresh"] = in_turn(Silence(), renewed)
    assert connect().get("/api/v1/user") == {"username": "me"}
    assert [each.token for each in server.asked("POST /api/v1/token/refresh")] == ["refresh-1"] * 2
    assert store.load(server.url).refresh_token == "refresh-2"


def test_a_gateway_that_starts_again_is_waited_for(monkeypatch, at_once):
    """The connection breaks off, then nothing listens for a moment; then there is an answer."""
    happens = iter([httpx.ReadError("gone"), httpx.ConnectError("refused"), httpx.Response(200, json={"id": "1"})])

    def answer(_request):
        happened = next(happens)
        if isinstance(happened, Exception):
            raise happened
        return happened

    client = Client("http://server", transport=httpx.MockTransport(answer))
    assert client.create("/api/v1/images") == {"id": "1"}


def test_a_server_that_is_not_there_is_told_at_once():
    with pytest.raises(ServerUnreachable, match="`uhm up`"):
        Client("http://127.0.0.1:9").create("/api/v1/images")


def test_a_lost_refresh_is_not_sent_when_it_would_look_stolen():
    """The server takes a replaced refresh token for ten seconds (UHM_REFRESH_GRACE_SECONDS)."""
    assert sum(client_module.REFRESH_PAUSES) < 5


def test_a_refresh_that_could_not_be_is_no_end_of_the_session(server, store):
    log_in(server, store, token(seconds=5))
    server.answers["POST /api/v1/token/refresh"] = Refusal(429, 8, "Too many attempts.", "TOO_MANY_ATTEMPTS")
    with pytest.raises(ApiError, match="Too many"):
        connect().get("/api/v1/user")
    assert store.load(server.url).refresh_token == "refresh-1"


def test_many_at_once_refresh_once(server, store):
    """As commands that run side by side do: each has its own client, and they share the file."""
    old, new = token(seconds=900, mark="old"), token(seconds=900, mark="new")
    log_in(server, store, old)
    accept_only(server, new)
    renewed = {"access_token": new, "refresh_token": "refresh-2"}
    server.answers["POST /api/v1/token/refresh"] = in_turn(renewed, Refusal(401, 16, "It was used before."))
    clients = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda client: client.get("/api/v1/user"), clients)) == [{"username": "me"}] * 8
    assert len(server.asked("POST /api/v1/token/refresh")) == 1


def test_a_bounded_list_asks_for_no_more(server):
    server.answers["GET /x"] = in_turn({"a": [1, 2], "next_page_token": "t"}, {"a": [3], "next_page_token": "u"})
    assert Client(server.url).pages("/x", field="a", at_most=3) == [1, 2, 3]
    assert [request.query["page_size"] for request in server.requests] == ["3", "1"]
