"""Names and passwords checked, and what a stranger may learn from it."""

from __future__ import annotations

import pytest

from tests.unit.auth.house import open_house
from uhm_auth import passwords as passwords_module
from uhm_auth.accounts import Change
from uhm_auth.credentials import Credentials
from uhm_auth.errors import TooManyAttempts, TooManyPasswords, UserDisabled, WrongCredentials, WrongPassword
from uhm_auth.passwords import PasswordHasher

ABSENT = ["nobody", "Ann", "", "a\0b", "not a name", "x" * 5000, "gone"]


@pytest.fixture
async def house(tmp_path):
    """Ann, an administrator, Bob, a user, Off, who is disabled, and Gone, who was deleted."""
    async with open_house(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}") as opened:
        for name in ("ann", "bob", "off", "gone"):
            await opened.registrar.register(name, "test")
        await opened.accounts.update("off", Change(disabled=True), actor="ann")
        await opened.accounts.delete("gone", actor="ann")
        yield opened


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """The costs of the bcrypts that were computed."""
    costs = []
    verify = passwords_module.verify_password

    def counted(password, stored):
        costs.append(passwords_module._parts(stored)[1])
        return verify(password, stored)

    monkeypatch.setattr(passwords_module, "verify_password", counted)
    return costs


async def refused(house, username: str, password: str) -> str:
    with pytest.raises(WrongCredentials) as caught:
        await house.credentials.check(username, password)
    assert caught.value.fields == {}
    return str(caught.value)


async def test_who_is_let_in(house):
    user = await house.credentials.check("bob", "test")
    assert (user.username, user.role) == ("bob", "user")


async def test_who_is_not_let_in_learns_nothing(house, hashed):
    """The same words after the same work, whether nobody has the name, the password is wrong, or the user is gone."""
    told = {await refused(house, name, "test") for name in ABSENT}
    told |= {await refused(house, name, password) for name in ("bob", "off") for password in ("", "x" * 5000)}
    assert len(told) == 1
    assert hashed == ["4"] * (len(ABSENT) + 4)


async def test_that_a_user_is_disabled_is_told_to_that_user_only(house):
    assert "disabled" not in await refused(house, "off", "wrong")
    with pytest.raises(UserDisabled, match="disabled"):
        await house.credentials.check("off", "test")
    reasons = [details for event, *_, details in await house.events() if event == "login.failed"]
    assert reasons == [{"reason": "password"}, {"reason": "disabled"}]


async def test_what_was_typed_as_a_name_is_not_noted(house):
    """It may be a password."""
    await refused(house, "hunter2", "ann")
    await refused(house, "bob", "wrong")
    failed = [event for event in await house.events() if event[0] == "login.failed"]
    assert failed == [
        ("login.failed", "", "", {"reason": "username"}),
        ("login.failed", "", "bob", {"reason": "password"}),
    ]
    assert "hunter2" not in str(await house.events())


@pytest.mark.parametrize("username", ["bob", "nobody"])
async def test_guesses_are_counted_alike_for_who_is_there_and_who_is_not(house, username):
    answers = []
    for _ in range(8):
        try:
            await house.credentials.check(username, "wrong")
        except (WrongCredentials, TooManyAttempts) as error:
            answers.append(type(error))
    assert answers == [WrongCredentials] * 5 + [TooManyAttempts] * 3


async def test_the_right_password_is_no_guess(house):
    for _ in range(10):
        await house.credentials.check("bob", "test")


async def test_the_password_once_more_is_counted_too(house):
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await house.credentials.confirm("bob", "wrong")
    with pytest.raises(TooManyAttempts):
        await house.credentials.confirm("bob", "test")


async def test_a_login_makes_a_hash_of_another_cost_anew(house, hashed):
    with PasswordHasher(cost=6, threads=1, waiting=8) as stronger:
        renewed = Credentials(
            house.users, passwords=stronger, throttle=house.credentials._throttle, audit=house.credentials._audit
        )
        with pytest.raises(WrongCredentials):
            await renewed.check("bob", "wrong")
        with pytest.raises(WrongCredentials):
            await renewed.check("nobody", "wrong")
        assert hashed == ["4", "4", "5", "6"]  # 2^4 + 2^4 + 2^5 rounds are as many as 2^6

        before = (await house.users.user("bob")).password_hash
        assert ",r=4$" in before
        answered = await renewed.check("bob", "test")
        assert ",r=6$" in answered.password_hash
        assert await house.users.user("bob") == answered

        await renewed.check("bob", "test")
        assert await house.users.user("bob") == answered


async def test_a_hash_made_anew_does_not_undo_a_change(house):
    """Between the check and the new hash somebody may have set another password."""
    before = await house.users.user("bob")
    bob, _ = await house.log_in("bob")
    await house.password_changes.change(bob, current="test", new="other")
    await house.users.renew_hash(before, "the old password in another form")
    assert await house.credentials.check("bob", "other")


async def test_when_there_is_too_much_to_do_nothing_is_counted(house, monkeypatch):
    monkeypatch.setattr(house.hasher, "_capacity", 0)
    for _ in range(20):
        with pytest.raises(TooManyPasswords):
            await house.credentials.check("bob", "test")
    monkeypatch.undo()
    assert await house.credentials.check("bob", "test")
