"""Accounts on the command line: what it asks the server, keeps and prints."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.cli.conftest import Refusal
from uhm.commands.keys import SCOPES
from uhm.credentials import Credentials, CredentialStore
from uhm.system.findings import password_finding
from uhm_auth.scopes import all_scopes

CREATED, EXPIRES = "2026-11-01T00:00:00Z", "2027-01-31T12:00:00.5Z"
SESSION = {"id": "s1", "create_time": CREATED, "use_time": CREATED, "expire_time": EXPIRES, "current": True}
KEY = {"id": "k1", "name": "ci", "scopes": ["images.read", "machines.write"], "create_time": CREATED}
INVITATION = {"id": "i1", "role": "user", "creator": "root", "create_time": CREATED, "expire_time": EXPIRES}
USERS = [
    {"username": "ann", "role": "admin", "create_time": CREATED, "login_time": CREATED},
    {"username": "ben", "role": "user", "disabled": True, "create_time": CREATED},
]
EVENT = {
    "time": EXPIRES,
    "event": "login.failed",
    "username": "x\x1b[2J",
    "address": "::1",
    "details": {"reason": "no"},
}


@pytest.fixture
def store(server):
    """Somebody is logged in."""
    store = CredentialStore.default()
    with store.lock():
        store.save(server.url, Credentials(username="ann", access_token="a1", refresh_token="r1"))
    return store


def test_register_with_an_invitation(server, uhm):
    server.answers["POST /api/v1/user/create"] = {"status": "registered", "username": "ann"}

    assert uhm("register", "ann", "pw", "--invitation", "code").code == 0
    assert server.requests[0].json == {"username": "ann", "password": "pw", "invitation": "code"}
    uhm("register", "ann", "pw")
    assert server.requests[1].json == {"username": "ann", "password": "pw"}


@pytest.mark.parametrize(("arguments", "body"), [((), {}), (("--everywhere",), {"everywhere": True})])
def test_logout(server, uhm, store, arguments, body):
    server.answers["POST /api/v1/token/revoke"] = {}
    done = uhm("logout", *arguments)

    assert (done.code, server.requests[0].json) == (0, body)
    assert store.load(server.url) is None


def test_a_logout_everywhere_that_failed_keeps_the_session(server, uhm, store):
    server.answers["POST /api/v1/token/revoke"] = Refusal(503, 14, "The auth service does not answer.")

    assert uhm("logout", "--everywhere").code == 1
    assert store.load(server.url) is not None
    assert uhm("logout").code == 0
    assert store.load(server.url) is None


def test_logout_ends_what_was_saved_whatever_the_environment_says(server, uhm, store, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", "fixed")
    server.answers["POST /api/v1/token/revoke"] = {}

    assert uhm("logout").code == 0
    assert [request.token for request in server.requests] == ["a1"]
    assert store.load(server.url) is None


def test_logout_without_a_saved_session_asks_nothing(server, uhm, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", "fixed")

    assert uhm("logout", "--json").json == {"url": server.url, "logged_out": False}
    assert server.requests == []


def test_logout_everywhere_without_a_saved_session_is_the_environments(server, uhm, monkeypatch):
    server.answers["POST /api/v1/token/revoke"] = lambda request: {} if request.token else Refusal(401, 16, "Log in.")

    assert uhm("logout", "--everywhere").code == 1
    monkeypatch.setenv("UHM_TOKEN", "fixed")
    assert uhm("logout", "--everywhere").code == 0
    assert server.requests[-1].json == {"everywhere": True}


@pytest.mark.parametrize(("username", "kept"), [("ann", False), ("ben", True)])
def test_unregister_forgets_the_session_of_who_is_gone(server, uhm, store, username, kept):
    server.answers |= {"GET /api/v1/user": {"username": username}, "POST /api/v1/user:delete": {}}

    assert uhm("unregister", "--password", "pw").out == f"Deleted {username}.\n"
    assert server.requests[-1].json == {"password": "pw"}
    assert (store.load(server.url) is not None) is kept


def test_unregister_with_a_wrong_password_forgets_nothing(server, uhm, store):
    server.answers |= {
        "GET /api/v1/user": {"username": "ann"},
        "POST /api/v1/user:delete": Refusal(400, 3, "The password is wrong."),
    }

    assert uhm("unregister", "--password", "pw").code == 1
    assert store.load(server.url) is not None


def test_passwd_keeps_the_session_that_follows(server, uhm, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("old\nnew\n"))
    server.answers |= {
        "GET /api/v1/user": {"username": "ann"},
        "POST /api/v1/user:changePassword": {"access_token": "a2", "refresh_token": "r2"},
    }

    assert uhm("passwd", "--json").json == {"username": "ann"}
    assert server.requests[-1].json == {"current_password": "old", "new_password": "new"}
    assert store.load(server.url) == Credentials(username="ann", access_token="a2", refresh_token="r2")


def test_passwd_with_the_environments_token_saves_nothing(server, uhm, store, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", "fixed")
    server.answers |= {
        "GET /api/v1/user": {"username": "ben"},
        "POST /api/v1/user:changePassword": {"access_token": "a2", "refresh_token": "r2"},
    }

    assert uhm("passwd", "--current-password", "old", "--new-password", "new").code == 0
    assert store.load(server.url).access_token == "a1"


def test_passwd_with_a_code(server, uhm):
    server.answers["POST /api/v1/user:resetPassword"] = {}

    assert uhm("passwd", "ben", "--code", "c", "--new-password", "new").code == 0
    assert server.requests[0].json == {"username": "ben", "code": "c", "new_password": "new"}
    assert server.requests[0].token == ""


@pytest.mark.parametrize("arguments", [("ben",), ("--code", "c")])
def test_a_code_is_for_a_name(server, uhm, arguments):
    assert uhm("passwd", *arguments).code == 2
    assert server.requests == []


def test_sessions(server, uhm):
    server.answers |= {"GET /api/v1/sessions": {"sessions": [SESSION]}, "DELETE /api/v1/sessions/s1": {}}

    row = uhm("sessions", "ls").out.splitlines()[1]
    assert row.split()[:2] == ["*", "s1"]
    assert "2027-01-31 12:00" in row
    assert uhm("sessions", "ls", "--json").json == {"sessions": [SESSION]}
    assert uhm("sessions", "rm", "s1", "--json").json == {"sessions": [{"id": "s1"}]}


def test_a_key_is_all_that_is_printed(server, uhm):
    server.answers["POST /api/v1/api_keys"] = {"api_key": KEY, "key": "uhm_0123_secret"}
    done = uhm("keys", "create", "ci", "-s", "images.read", "--scope", "machines.write", "--ttl", "30d")

    assert (done.code, done.out) == (0, "uhm_0123_secret\n")
    expected = {"name": "ci", "scopes": ["images.read", "machines.write"], "ttl": "2592000s"}
    assert server.requests[0].json == expected
    uhm("keys", "create", "ci", "-s", "images.read")
    assert "ttl" not in server.requests[1].json


@pytest.mark.parametrize("arguments", [("ci",), ("ci", "-s", "images.read", "--ttl", "soon")])
def test_a_key_that_lacks_something_is_wrong_usage(server, uhm, arguments):
    assert uhm("keys", "create", *arguments).code == 2
    assert server.requests == []


def test_the_help_lists_all_scopes_that_there_are(uhm):
    assert list(SCOPES) == list(all_scopes())
    assert [scope for scope in SCOPES if scope not in uhm("keys", "create", "--help").out] == []


def test_keys(server, uhm):
    server.answers |= {"GET /api/v1/api_keys": {"api_keys": [KEY]}, "DELETE /api/v1/api_keys/k1": {}}

    assert uhm("keys", "ls").out.splitlines()[1].split()[:3] == ["k1", "ci", "images.read,machines.write"]
    assert uhm("keys", "ls").out.splitlines()[1].endswith("never")
    assert uhm("keys", "rm", "k1").out == "Deleted k1\n"
    assert uhm("keys", "rm", "k1", "k2").code == 1


def test_the_environments_token_may_be_a_key(server, uhm, monkeypatch):
    monkeypatch.setenv("UHM_TOKEN", "uhm_0123_secret")
    server.answers["GET /api/v1/user"] = {"username": "ann", "scopes": ["account.read"]}

    assert uhm("whoami").out == "ann\n"
    assert server.requests[0].token == "uhm_0123_secret"


def test_users(server, uhm):
    server.answers["GET /api/v1/users"] = {"users": USERS}
    lines = uhm("users", "ls").out.splitlines()

    assert lines[1].split()[:3] == ["ann", "admin", "enabled"]
    assert lines[2].split()[:3] == ["ben", "user", "disabled"]
    assert lines[2].endswith("never")
    assert uhm("users", "ls", "--json").json == {"users": USERS}


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("--role", "admin"), {"role": "admin"}),
        (("--disable",), {"disabled": True}),
        (("--enable", "--role", "user"), {"disabled": False, "role": "user"}),
    ],
)
def test_only_what_changes_is_sent(server, uhm, arguments, body):
    server.answers["PATCH /api/v1/users/ben"] = {"username": "ben", "role": "user", "disabled": True}
    done = uhm("users", "update", "ben", *arguments)

    assert (done.code, done.out) == (0, "ben: user, disabled\n")
    assert server.requests[0].json == body


def test_an_update_of_nothing_is_wrong_usage(server, uhm):
    assert uhm("users", "update", "ben").code == 2
    assert server.requests == []


class Typed(io.StringIO):
    """A terminal, and what is typed there."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code", "deleted"), [("n\n", 1, 0), ("\n", 1, 0), ("y\n", 0, 1), ("", 130, 0)])
def test_deleting_a_user_is_asked_about(server, uhm, monkeypatch, typed, code, deleted):
    server.answers["DELETE /api/v1/users/ben"] = {}
    monkeypatch.setattr("sys.stdin", Typed(typed))
    done = uhm("users", "rm", "ben")

    assert (done.code, len(server.requests)) == (code, deleted)
    assert ("Nothing was deleted." in done.err) is (code == 1)


def test_without_a_terminal_nobody_is_asked(server, uhm, monkeypatch):
    server.answers["DELETE /api/v1/users/ben"] = {}
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = uhm("users", "rm", "ben")

    assert (done.code, server.requests) == (2, [])
    assert "--yes" in done.err
    assert uhm("users", "rm", "ben", "--yes").out == "Deleted ben\n"
    assert uhm("users", "rm", "ben", "-y", "--json").json == {"users": [{"username": "ben"}]}


def test_a_code_for_who_has_forgotten(server, uhm):
    server.answers["POST /api/v1/users/ben:createPasswordReset"] = {"code": "c0de", "expire_time": EXPIRES}
    done = uhm("users", "reset-password", "ben", "--ttl", "2h")

    assert (done.code, done.out, server.requests[0].json) == (0, "c0de\n", {"ttl": "7200s"})
    assert "uhm passwd ben --code" in done.err


def test_invitations(server, uhm):
    server.answers |= {
        "POST /api/v1/invitations": {"invitation": INVITATION, "code": "c0de"},
        "GET /api/v1/invitations": {"invitations": [INVITATION]},
        "DELETE /api/v1/invitations/i1": {},
    }

    assert uhm("invitations", "create", "--role", "admin", "--ttl", "1d").out == "c0de\n"
    assert server.requests[0].json == {"role": "admin", "ttl": "86400s"}
    assert uhm("invitations", "ls").out.splitlines()[1].split()[:3] == ["i1", "user", "root"]
    assert uhm("invitations", "rm", "i1", "--json").json == {"invitations": [{"id": "i1"}]}


def test_signing_keys(server, uhm):
    server.answers["POST /api/v1/signing_keys:rotate"] = {"kid": "abc"}

    assert uhm("signing-keys", "rotate").out == "Tokens are signed with abc now.\n"


def test_audit(server, uhm):
    server.answers["GET /api/v1/audit/events"] = {"events": [EVENT]}
    done = uhm("audit", "--user", "ann", "--event", "login.failed", "--since", "2h", "-n", "5")

    shown = ["2027-01-31", "12:00:00", "login.failed", "-", "x?[2J", "::1", "reason=no"]
    assert done.out.splitlines()[1].split() == shown
    query = server.requests[0].query
    since = datetime.fromisoformat(query.pop("start_time"))
    assert timedelta(hours=2) <= datetime.now(UTC) - since < timedelta(hours=3)
    assert query == {"username": "ann", "event": "login.failed", "page_size": "5"}


@pytest.mark.parametrize(
    ("since", "sent"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00.000000Z"),
        ("0500-01-31T12:00:00Z", "0500-01-31T12:00:00.000000Z"),
    ],
)
def test_audit_since_a_time(server, uhm, since, sent):
    server.answers["GET /api/v1/audit/events"] = {}
    uhm("audit", "--since", since)

    assert server.requests[0].query["start_time"] == sent


@pytest.mark.parametrize(
    "since",
    ["yesterday", "9999999d", "99999999999999999999d", "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-12:00"],
)
def test_audit_since_nonsense(server, uhm, since):
    assert uhm("audit", "--since", since).code == 2
    assert server.requests == []


@pytest.mark.parametrize(
    ("policy", "ok"),
    [
        ({"password_min_length": 12, "password_min_score": 3}, True),
        ({"password_min_length": 8, "password_min_score": 1}, True),
        ({"password_min_length": 8}, False),
        ({"password_min_length": 1, "password_min_score": 3}, False),
        ({}, False),
    ],
)
def test_the_doctor_tells_a_weak_policy(policy, ok):
    found = password_finding({"registration": "open"} | policy)

    assert (found.ok, found.lack, found.essential) == (ok, "weak", False)
