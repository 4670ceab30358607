"""New passwords, changed and reset."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from tests.unit.auth.house import open_house
from uhm_auth.errors import (
    InvalidPassword,
    InvalidTtl,
    SessionEnded,
    TooManyAttempts,
    WrongCredentials,
    WrongPassword,
    WrongResetCode,
)
from uhm_auth.models import PasswordResetRow
from uhm_auth.policy import Policy
from uhm_common.callers.revocations import Revoked

DAY = 24 * 3600
NEW = "quite another"


@pytest.fixture
async def house(tmp_path):
    """Ann, an administrator, and Bob, a user, where passwords have four characters at least."""
    policy = Policy(password_min_length=4)
    async with open_house(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}", policy=policy) as opened:
        for name in ("ann", "bob"):
            await opened.registrar.register(name, "test")
        yield opened


async def reset_code(house, **more) -> str:
    return (await house.password_changes.create_reset("bob", **{"ttl": None, "actor": "ann", **more})).code


async def password_is(house, password: str) -> bool:
    try:
        return (await house.credentials.check("bob", password)).username == "bob"
    except WrongCredentials:
        return False


async def test_a_change_ends_all_sessions_and_begins_one(house):
    bob, refresh = await house.log_in("bob")
    other, other_refresh = await house.log_in("bob")

    issued = await house.password_changes.change(bob, current="test", new=NEW)

    for ended in (refresh, other_refresh):
        with pytest.raises(SessionEnded):
            await house.sessions.refresh(ended)
    for ended in (bob, other):
        with pytest.raises(Revoked):
            await house.bearer(ended.token)
    again = await house.bearer(issued.access)
    assert (again.username, again.fresh) == ("bob", True)
    assert (await house.sessions.refresh(issued.refresh)).access
    assert (await password_is(house, "test"), await password_is(house, NEW)) == (False, True)
    events = await house.events()
    assert ("password.changed", "bob", "bob", {}) in events
    assert ("sessions.revoked", "", "bob", {"count": "2", "reason": "password"}) in events


@pytest.mark.parametrize("rotates", [False, True])
async def test_the_new_session_rotates_as_the_old_one_did(house, rotates):
    bob, _ = await house.log_in("bob", rotates=rotates)
    issued = await house.password_changes.change(bob, current="test", new=NEW)
    assert ((await house.sessions.refresh(issued.refresh)).refresh is not None) is rotates


@pytest.mark.parametrize(
    ("current", "new", "error"),
    [
        ("wrong", NEW, WrongPassword),
        ("", NEW, WrongPassword),
        ("test", "", InvalidPassword),
        ("test", "abc", InvalidPassword),
        ("test", "x" * 1025, InvalidPassword),
        ("test", "test", InvalidPassword),
        ("wrong", "wrong", WrongPassword),
    ],
    ids=["wrong", "empty", "no new one", "short", "long", "the same", "wrong and the same"],
)
async def test_what_is_refused_ends_nothing(house, current, new, error):
    bob, refresh = await house.log_in("bob")
    with pytest.raises(error):
        await house.password_changes.change(bob, current=current, new=new)
    assert (await house.sessions.refresh(refresh)).access
    assert await password_is(house, "test")


async def test_the_current_password_cannot_be_guessed(house):
    """Not even by who has stolen an access token."""
    bob, _ = await house.log_in("bob")
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await house.password_changes.change(bob, current="wrong", new=NEW)
    with pytest.raises(TooManyAttempts):
        await house.password_changes.change(bob, current="test", new=NEW)


async def test_of_two_changes_at_once_one_counts(house):
    bob, _ = await house.log_in("bob")
    answers = await asyncio.gather(
        *(house.password_changes.change(bob, current="test", new=f"{NEW} {n}") for n in range(4)),
        return_exceptions=True,
    )
    (winner,) = (n for n, answer in enumerate(answers) if not isinstance(answer, Exception))
    assert all(isinstance(answer, WrongPassword) for n, answer in enumerate(answers) if n != winner)
    assert await password_is(house, f"{NEW} {winner}")
    assert (await house.bearer(answers[winner].access)).username == "bob"


async def test_a_code_sets_a_password_once(house):
    _, refresh = await house.log_in("bob")
    code = await reset_code(house)

    await house.password_changes.reset("bob", code=code, new=NEW)

    assert (await password_is(house, "test"), await password_is(house, NEW)) == (False, True)
    with pytest.raises(SessionEnded):
        await house.sessions.refresh(refresh)
    with pytest.raises(WrongResetCode):
        await house.password_changes.reset("bob", code=code, new="once more")
    events = await house.events()
    assert ("password.reset_created", "ann", "bob", {}) in events
    assert ("password.reset", "", "bob", {}) in events
    assert ("sessions.revoked", "", "bob", {"count": "1", "reason": "password"}) in events


async def test_of_many_with_one_code_one_sets_a_password(house):
    code = await reset_code(house)
    answers = await asyncio.gather(
        *(house.password_changes.reset("bob", code=code, new=f"{NEW} {n}") for n in range(4)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType"] + ["WrongResetCode"] * 3
    assert await password_is(house, f"{NEW} {answers.index(None)}")


async def test_a_code_is_nowhere_in_the_database(house):
    made = await house.password_changes.create_reset("bob", ttl=None, actor="ann")
    assert made.code not in repr(made)
    async with house.database.read() as transaction:
        row = await transaction.scalar(select(PasswordResetRow))
    assert (row.creator, row.expires_at, len(row.code_hash)) == ("ann", made.expires_at, 64)
    assert all(made.code not in str(value) for value in vars(row).values())
    assert made.code not in str(await house.events())


async def test_another_code_takes_the_place_of_the_one_before(house):
    first, second = await reset_code(house), await reset_code(house)
    with pytest.raises(WrongResetCode):
        await house.password_changes.reset("bob", code=first, new=NEW)
    await house.password_changes.reset("bob", code=second, new=NEW)


@pytest.mark.parametrize(("ttl", "lasts"), [(None, DAY), (1, 1), (30 * DAY, 30 * DAY)])
async def test_a_code_ends(house, ttl, lasts):
    code = await reset_code(house, ttl=ttl)
    house.clock.now += lasts
    with pytest.raises(WrongResetCode):
        await house.password_changes.reset("bob", code=code, new=NEW)
    house.clock.now -= 1
    await house.password_changes.reset("bob", code=code, new=NEW)


@pytest.mark.parametrize("ttl", [0, -5, 30 * DAY + 1])
async def test_how_long_no_code_is_good(house, ttl):
    with pytest.raises(InvalidTtl):
        await reset_code(house, ttl=ttl)


async def test_a_change_makes_a_code_good_for_nothing(house):
    code = await reset_code(house)
    bob, _ = await house.log_in("bob")
    await house.password_changes.change(bob, current="test", new=NEW)
    with pytest.raises(WrongResetCode):
        await house.password_changes.reset("bob", code=code, new="test")


async def test_a_password_against_the_policy_does_not_use_a_code_up(house):
    code = await reset_code(house)
    with pytest.raises(InvalidPassword):
        await house.password_changes.reset("bob", code=code, new="abc")
    await house.password_changes.reset("bob", code=code, new=NEW)


async def test_who_has_no_code_learns_nothing(house):
    code = await reset_code(house)
    told = set()
    for username, wrong in [("bob", code[:-1]), ("bob", ""), ("ann", code), ("nobody", code), ("a\0b", code), ("", "")]:
        with pytest.raises(WrongResetCode) as caught:
            await house.password_changes.reset(username, code=wrong, new="")
        told.add(str(caught.value))
    assert len(told) == 1
    failed = [event for event in await house.events() if event[0] == "password.reset_failed"]
    assert [event[2] for event in failed] == ["bob", "bob", "", "", "", ""]


@pytest.mark.parametrize("username", ["bob", "nobody"])
async def test_codes_are_not_guessed(house, username):
    code = await reset_code(house)
    for _ in range(5):
        with pytest.raises(WrongResetCode):
            await house.password_changes.reset(username, code="guess", new=NEW)
    with pytest.raises(TooManyAttempts):
        await house.password_changes.reset(username, code=code, new=NEW)


async def test_the_expired_are_forgotten(house):
    await reset_code(house, ttl=10)
    await house.password_changes.create_reset("ann", ttl=11, actor="ann")
    house.clock.now += 10
    await house.password_changes.forget_expired()
    async with house.database.read() as transaction:
        assert len(list(await transaction.scalars(select(PasswordResetRow)))) == 1
