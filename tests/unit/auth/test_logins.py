"""Logging in, and what tokens are good for."""

from __future__ import annotations

import jwt
import pytest

from uhm_auth.credentials import Credentials
from uhm_auth.errors import TooManyAttempts, UserDisabled, WrongCredentials
from uhm_auth.logins import Logins
from uhm_auth.passwords import PasswordHasher
from uhm_common.callers.identity import Identity

ALL_WRONG = [
    ("ann", "wrong"),
    ("ann", ""),
    ("ann", "x" * 5000),
    ("bob", "test"),
    ("", "test"),
    ("a\0b", "x"),
    ("é", "x"),
]


@pytest.fixture
async def ann(add_user, hasher):
    return await add_user("ann", password_hash=await hasher.hash("test"))


def identity(username="ann", **more) -> Identity:
    return Identity(username=username, session_id="s", token="t", **more)


async def test_the_right_password(logins, ann, users, logged):
    issued = await logins.log_in("ann", "test", rotate=False)
    assert issued.access
    assert issued.refresh
    assert await logged() == [("login.succeeded", "ann")]
    assert (await users.user("ann")).login_at is not None


@pytest.mark.parametrize(("username", "password"), ALL_WRONG)
async def test_who_you_are_not_is_not_told(logins, ann, username, password):
    """The same words for a name that is not there and for a password that is not right."""
    with pytest.raises(WrongCredentials) as caught:
        await logins.log_in(username, password, rotate=False)
    assert str(caught.value).startswith("The username or the password is wrong.")
    assert caught.value.fields == {}


async def test_wrong_passwords_are_counted_and_logged(logins, ann, logged):
    answers = []
    while TooManyAttempts not in answers:
        with pytest.raises((WrongCredentials, TooManyAttempts)) as caught:
            await logins.log_in("ann", "wrong", rotate=False)
        answers.append(caught.type)
    assert WrongCredentials in answers
    events = [event for event, _ in await logged()]
    assert set(events) == {"login.failed", "login.limited"}
    assert events[-1] == "login.limited"


async def test_a_disabled_user_is_not_let_in(logins, ann, users):
    async with users.changing() as transaction:
        await users.set_rights(transaction, ann, role="user", disabled_at=100)
    with pytest.raises(UserDisabled):
        await logins.log_in("ann", "test", rotate=False)
    with pytest.raises(WrongCredentials):
        await logins.log_in("ann", "wrong", rotate=False)


@pytest.mark.parametrize("demanded", [False, True])
@pytest.mark.parametrize("asked", [False, True])
async def test_rotation_where_it_is_asked_for_or_demanded(
    credentials, make_sessions, tokens, api_keys, ann, asked, demanded
):
    sessions = make_sessions(always_rotate=demanded)
    issued = await Logins(credentials, sessions, tokens, api_keys).log_in("ann", "test", rotate=asked)
    assert ((await sessions.refresh(issued.refresh)).refresh is not None) is (asked or demanded)


async def test_a_login_renews_a_hash_of_another_cost(users, throttle, audit, sessions, tokens, api_keys, ann):
    with PasswordHasher(cost=5, threads=1, waiting=8) as stronger:
        credentials = Credentials(users, passwords=stronger, throttle=throttle, audit=audit)
        logins = Logins(credentials, sessions, tokens, api_keys)
        with pytest.raises(WrongCredentials):
            await logins.log_in("ann", "wrong", rotate=False)
        assert ",r=4$" in (await users.user("ann")).password_hash
        assert (await logins.log_in("ann", "test", rotate=False)).access
        assert ",r=5$" in (await users.user("ann")).password_hash
        assert (await logins.log_in("ann", "test", rotate=False)).access


@pytest.mark.parametrize("everywhere", [False, True])
async def test_revoking(logins, sessions, ann, everywhere):
    first, second = [await logins.log_in("ann", "test", rotate=False) for _ in range(2)]
    await (sessions.end_everywhere if everywhere else sessions.end)(first.access)

    for issued, ended in ((first, True), (second, everywhere)):
        found = await logins.introspect(issued.access, caller=identity())
        assert (found is None) is ended


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_what_is_told_of_a_token(logins, ann, kind):
    issued = await logins.log_in("ann", "test", rotate=True)
    token = getattr(issued, kind)
    claims = jwt.decode(token, options={"verify_signature": False})

    found = await logins.introspect(token, caller=identity())

    assert (found.username, found.claims.kind, found.api_key) == ("ann", kind, None)
    assert (found.claims.token_id, found.claims.expires_at) == (claims["jti"], claims["exp"])


async def test_a_refresh_token_that_was_replaced_is_not_active(logins, sessions, ann):
    issued = await logins.log_in("ann", "test", rotate=True)
    again = await sessions.refresh(issued.refresh)
    assert await logins.introspect(issued.refresh, caller=identity()) is None
    assert await logins.introspect(again.refresh, caller=identity()) is not None


async def test_whose_tokens_one_may_ask_about(logins, ann):
    issued = await logins.log_in("ann", "test", rotate=False)
    assert await logins.introspect(issued.access, caller=identity("bob")) is None
    assert (await logins.introspect(issued.access, caller=identity("bob", role="admin"))).username == "ann"


async def test_what_is_told_of_an_api_key(logins, api_keys, ann):
    made = await api_keys.create(identity(), name="ci", scopes=["images.read"], ttl=100)

    found = await logins.introspect(made.text, caller=identity())

    assert (found.username, found.claims) == ("ann", None)
    assert (found.api_key.id, found.api_key.scopes) == (made.key.id, {"images.read"})
    assert await logins.introspect(made.text, caller=identity("bob")) is None


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "uhm_", f"uhm_{'0' * 16}_{'x' * 43}", "x" * 100_000])
async def test_what_is_no_token_is_not_active(logins, token):
    assert await logins.introspect(token, caller=identity(role="admin")) is None
