"""Accounts by the command line, on a system that strangers reach: by invitation, with passwords hard to guess."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BOOTSTRAP = "one-code-for-the-very-first-user"
PASSWORD, OTHER = "correct horse battery staple", "purple elevator waits outside"
STRICT = {
    "UHM_REGISTRATION": "invitation",
    "UHM_BOOTSTRAP_INVITATION": BOOTSTRAP,
    "UHM_PASSWORD_MIN_LENGTH": "12",
    "UHM_PASSWORD_MIN_SCORE": "3",
    "UHM_ACCESS_TOKEN_SECONDS": "25",  # the command line renews those that end within 30
    "UHM_LAYER_GRACE_SECONDS": "0",
    "UHM_SPARE_MACHINES": "0",
    "UHM_SNAPSHOTS": "off",
}
AT_ONCE = 8
WRONG, ENDED = "the password is wrong", "was ended"


class Terminal:
    """The command line of one user, with a session of its own."""

    def __init__(self, system, name):
        config = str(system.state_dir / "home" / name)
        self.name = name
        self._system = replace(system, env=system.env | {"XDG_CONFIG_HOME": config})

    def __call__(self, *arguments, **options):
        return self._system.uhm(*arguments, **options)

    def json(self, *arguments, **options):
        return json.loads(self(*arguments, "--json", **options).stdout)

    def refused(self, *arguments, saying, **options):
        done = self(*arguments, check=False, **options)
        assert done.returncode == 1, done.stdout
        assert saying in done.stderr


def until(condition, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def takes(user, key):
    """Whether the system takes an API key; that it could not say so is neither."""
    done = user("images", token=key, check=False)
    assert done.returncode == 0 or "key is not good" in done.stderr or ENDED in done.stderr, done.stderr
    return done.returncode == 0


@pytest.fixture(scope="module")
def strict(running):
    with running(**STRICT) as system:
        yield system


@pytest.fixture(scope="module")
def admin(strict):
    """The first user, who has the bootstrap invitation."""
    admin = Terminal(strict, "root")
    admin.refused("register", "root", PASSWORD, saying="invitation")
    admin.refused("register", "root", "test", "--invitation", BOOTSTRAP, saying="12")
    admin("register", "root", PASSWORD, "--invitation", BOOTSTRAP)
    admin("login", "root", "--password", PASSWORD)
    return admin


@pytest.fixture
def invited(strict, admin):
    """Invites, registers and logs in."""

    def invited(name):
        code = admin("invitations", "create").stdout.strip()
        user = Terminal(strict, name)
        user("register", name, PASSWORD, "--invitation", code)
        user("login", name, "--password", PASSWORD)
        user.refused("register", f"{name}2", PASSWORD, "--invitation", code, saying="invitation")
        return user

    return invited


def test_the_first_user_is_an_administrator_and_the_others_are_not(admin, invited):
    ann = invited("ann")

    assert {user["username"]: user["role"] for user in admin.json("users", "ls")["users"]} == {
        "root": "admin",
        "ann": "user",
    }
    ann.refused("users", "ls", saying="administrator")
    admin.refused("users", "update", "root", "--role", "user", saying="administrator")


def test_the_bootstrap_invitation_is_for_one(admin):
    admin.refused("register", "second", PASSWORD, "--invitation", BOOTSTRAP, saying="invitation")


def test_the_doctor_tells_the_policy(strict, admin):
    checks = admin.json("doctor", "--state-dir", str(strict.state_dir), check=False)["checks"]

    assert [check["ok"] for check in checks if check["name"] == "passwords"] == [True]


def test_commands_side_by_side_share_a_session(invited):
    """Every one of them finds a token that ends soon, and a refresh token may be used once."""
    ben = invited("ben")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda _: ben("whoami").stdout, range(AT_ONCE)))

    assert answers == ["ben\n"] * AT_ONCE
    assert ben("whoami").stdout == "ben\n"
    assert len(ben.json("sessions", "ls")["sessions"]) == 1


def test_sessions_end(strict, invited):
    cem, elsewhere = invited("cem"), Terminal(strict, "cem-elsewhere")
    elsewhere("login", "cem", "--password", PASSWORD)
    (other,) = [each["id"] for each in cem.json("sessions", "ls")["sessions"] if not each.get("current")]
    cem("sessions", "rm", other)
    elsewhere.refused("whoami", saying=ENDED)
    assert cem("whoami").stdout == "cem\n"

    elsewhere("login", "cem", "--password", PASSWORD)
    cem("logout", "--everywhere")
    elsewhere.refused("whoami", saying=ENDED)


def test_a_password_is_changed(strict, invited):
    dan, elsewhere = invited("dan"), Terminal(strict, "dan-elsewhere")
    elsewhere("login", "dan", "--password", PASSWORD)
    dan.refused("passwd", "--current-password", PASSWORD, "--new-password", "password1234", saying="password")
    dan("passwd", "--current-password", PASSWORD, "--new-password", OTHER)

    assert dan("whoami").stdout == "dan\n"
    elsewhere.refused("whoami", saying=ENDED)
    elsewhere.refused("login", "dan", "--password", PASSWORD, saying=WRONG)
    elsewhere("login", "dan", "--password", OTHER)


def test_a_forgotten_password_is_set_with_a_code(admin, invited):
    eve = invited("eve")
    code = admin("users", "reset-password", "eve").stdout.strip()
    eve("passwd", "eve", "--code", code, "--new-password", OTHER)
    eve.refused("passwd", "eve", "--code", code, "--new-password", PASSWORD, saying="code was used")

    eve.refused("whoami", saying=ENDED)
    eve("login", "eve", "--password", OTHER)


def test_an_api_key_does_what_its_scopes_say(invited):
    fay = invited("fay")
    key = fay("keys", "create", "ci", "--scope", "images.read", "--ttl", "1h").stdout.strip()

    assert fay.json("images", token=key) == {"images": []}
    fay.refused("pull", "hello", token=key, saying="images.write")
    fay.refused("keys", "ls", token=key, saying="API key")
    (listed,) = fay.json("keys", "ls")["api_keys"]
    assert (listed["name"], listed["scopes"]) == ("ci", ["images.read"])
    fay("keys", "rm", listed["id"])
    until(lambda: not takes(fay, key), seconds=5)


def test_who_is_disabled_is_kept_out(admin, invited):
    gil = invited("gil")
    key = gil("keys", "create", "ci", "--scope", "images.read").stdout.strip()
    admin("users", "update", "gil", "--disable")
    gil.refused("login", "gil", "--password", PASSWORD, saying="disabled")
    until(lambda: not takes(gil, key), seconds=5)
    admin("users", "update", "gil", "--enable")

    gil("login", "gil", "--password", PASSWORD)
    assert gil("whoami").stdout == "gil\n"


def test_tokens_stay_good_when_the_keys_change(admin, invited):
    ida = invited("ida")
    admin("signing-keys", "rotate")
    assert ida("whoami").stdout == "ida\n"
    assert ida.json("images") == {"images": []}


def test_nothing_is_left_of_who_is_deleted(strict, admin, invited):
    hal = invited("hal")
    hal("pull", "debian")
    hal("run", "-d", "debian", "sleep", "1000")
    machines, disks = strict.state_dir / "machines", strict.state_dir / "artifacts" / "disks"
    assert len(list(machines.glob("*/"))) == len(list(disks.glob("*/"))) == 1
    admin("users", "rm", "hal", "--yes")

    hal.refused("login", "hal", "--password", PASSWORD, saying=WRONG)
    until(lambda: not list(machines.glob("*/")))
    until(lambda: not list(disks.glob("*/")))
    code = admin("invitations", "create").stdout.strip()
    hal.refused("register", "hal", PASSWORD, "--invitation", code, saying="hal")


def test_who_wants_to_leave_leaves(invited):
    kim = invited("kim")
    kim.refused("unregister", "--password", "wrong", saying="password is wrong")
    assert kim("whoami").stdout == "kim\n"
    kim("unregister", "--password", PASSWORD)

    kim.refused("whoami", saying="token is needed")
    kim.refused("login", "kim", "--password", PASSWORD, saying=WRONG)


def test_all_of_it_is_in_the_audit_log(admin, invited):
    jan = invited("jan")
    jan.refused("login", "jan", "--password", "wrong", saying=WRONG)
    events = admin.json("audit", "--user", "jan", "--since", "1h")["events"]

    assert [event["event"] for event in events][:3] == ["login.failed", "login.succeeded", "user.created"]
    failed = admin.json("audit", "--user", "jan", "--event", "login.failed")["events"]
    assert [event["username"] for event in failed] == ["jan"]
    jan.refused("audit", saying="administrator")
