"""Registering and logging in."""

from __future__ import annotations

import asyncio

import pytest

from uhm_auth.errors import InvalidPassword, InvalidUsername, UsernameTaken, WrongCredentials
from uhm_auth.passwords import PasswordHasher
from uhm_auth.service import AuthService


@pytest.mark.parametrize("username", ["a", "7", "test", "Ann.B-c_d@example.org", "a+b", "x" * 64])
async def test_names_that_may_be_had(service, username):
    await service.register(username, "test")
    assert (await service.log_in(username, "test", rotate=False)).access


@pytest.mark.parametrize(
    "username",
    ["", " ", ".a", "_a", "-a", "@a", "+a", "a b", "a/b", "ann\n", "a\0b", "änne", "x" * 65, "x" * 10000, "a;--"],
)
async def test_names_that_may_not(service, username):
    with pytest.raises(InvalidUsername) as caught:
        await service.register(username, "test")
    assert "1 to 64 characters" in str(caught.value)
    assert len(str(caught.value)) < 300

    with pytest.raises(WrongCredentials):
        await service.log_in(username, "test", rotate=False)


async def test_a_name_is_taken_once(service):
    await service.register("ann", "test")
    with pytest.raises(UsernameTaken, match="'ann' is taken"):
        await service.register("ann", "other")
    assert (await service.log_in("ann", "test", rotate=False)).access


async def test_of_many_who_register_one_name_at_once_one_gets_it(service):
    answers = await asyncio.gather(*(service.register("ann", f"p{n}") for n in range(6)), return_exceptions=True)

    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType"] + ["UsernameTaken"] * 5
    assert (await service.log_in("ann", f"p{answers.index(None)}", rotate=False)).access


@pytest.mark.parametrize("password", ["", "x" * 1025])
async def test_passwords_that_may_not_be_chosen(service, password):
    with pytest.raises(InvalidPassword):
        await service.register("ann", password)


async def test_who_you_are_not_is_not_told(service):
    """The same words for a name that is not there and for a password that is not right."""
    await service.register("ann", "test")
    refusals = set()
    for username, password in [("ann", "wrong"), ("ann", ""), ("ann", "x" * 5000), ("bob", "test"), ("", "test")]:
        with pytest.raises(WrongCredentials) as caught:
            await service.log_in(username, password, rotate=False)
        refusals.add((str(caught.value), tuple(caught.value.fields)))
    assert len(refusals) == 1


async def test_rotation_where_it_is_asked_for_or_demanded(service, store, sessions, hasher):
    await service.register("ann", "test")
    demanding = AuthService(store, sessions, passwords=hasher, password_min_length=1, always_rotate=True)

    async def rotates(of, *, rotate) -> bool:
        issued = await of.log_in("ann", "test", rotate=rotate)
        return (await of.refresh(issued.refresh)).refresh is not None

    assert [await rotates(of, rotate=rotate) for of in (service, demanding) for rotate in (False, True)] == [
        False,
        True,
        True,
        True,
    ]


async def test_a_login_renews_a_hash_of_another_cost(service, store, sessions):
    await service.register("ann", "test")
    with PasswordHasher(cost=5, threads=1, waiting=8) as stronger:
        renewed = AuthService(store, sessions, passwords=stronger, password_min_length=1, always_rotate=False)
        with pytest.raises(WrongCredentials):
            await renewed.log_in("ann", "wrong", rotate=False)
        assert ",r=4$" in (await store.user("ann")).password_hash
        assert (await renewed.log_in("ann", "test", rotate=False)).access
        assert ",r=5$" in (await store.user("ann")).password_hash
        assert (await renewed.log_in("ann", "test", rotate=False)).access


async def test_revoking(service):
    await service.register("ann", "test")
    issued = await service.log_in("ann", "test", rotate=False)
    await service.revoke(issued.access)
    with pytest.raises(Exception, match="ended or has expired"):
        await service.refresh(issued.refresh)
