"""Who may register, and as what. What happens at the same moment is in tests/integration/test_accounts.py as well."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from tests.unit.auth.house import open_house
from uhm_auth.errors import (
    InvalidPassword,
    InvalidUsername,
    InvitationRefused,
    RegistrationClosed,
    UsernameTaken,
    WrongCredentials,
)
from uhm_auth.policy import Policy, Registration

OPEN, INVITED, CLOSED = (Policy(registration=each) for each in Registration)
CODE = "the code of the one who set it up"
SOUND = Policy(password_min_length=12, password_min_score=3)


@pytest.fixture
def house(tmp_path):
    """Opens a house with a policy."""

    def opened(policy: Policy = OPEN, **more):
        return open_house(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}", policy=policy, **more)

    return opened


async def role(house, username: str) -> str:
    return (await house.users.user(username)).role


@pytest.mark.parametrize("username", ["a", "7", "test", "Ann.B-c_d@example.org", "a+b", "x" * 64])
async def test_names_that_may_be_had(house, username):
    async with house() as opened:
        await opened.registrar.register(username, "test")
        assert (await opened.credentials.check(username, "test")).username == username


@pytest.mark.parametrize(
    "username",
    ["", " ", ".a", "_a", "-a", "@a", "+a", "a b", "a/b", "ann\n", "a\0b", "änne", "x" * 65, "x" * 10000, "a;--"],
)
async def test_names_that_may_not(house, username):
    async with house() as opened:
        with pytest.raises(InvalidUsername) as caught:
            await opened.registrar.register(username, "test")
        assert "1 to 64 characters" in str(caught.value)
        assert len(str(caught.value)) < 300
        with pytest.raises(WrongCredentials):
            await opened.credentials.check(username, "test")


async def test_a_name_is_taken_once(house):
    async with house() as opened:
        await opened.registrar.register("ann", "test")
        with pytest.raises(UsernameTaken, match="'ann' is taken"):
            await opened.registrar.register("ann", "other")
        assert await opened.credentials.check("ann", "test")


async def test_the_first_user_is_an_administrator_and_nobody_after(house):
    async with house() as opened:
        for name in ("ann", "bob", "cid"):
            await opened.registrar.register(name, "test")
        assert [await role(opened, name) for name in ("ann", "bob", "cid")] == ["admin", "user", "user"]
        assert await opened.events() == [
            ("user.created", "", "ann", {"role": "admin"}),
            ("user.created", "", "bob", {"role": "user"}),
            ("user.created", "", "cid", {"role": "user"}),
        ]


async def test_of_many_who_are_first_one_is(house):
    async with house() as opened:
        names = [f"user{number}" for number in range(20)]
        await asyncio.gather(*(opened.registrar.register(name, "test") for name in names))
        assert sorted([await role(opened, name) for name in names]) == ["admin"] + ["user"] * 19


async def test_of_many_who_register_one_name_at_once_one_gets_it(house):
    async with house() as opened:
        answers = await asyncio.gather(
            *(opened.registrar.register("ann", f"p{number}") for number in range(6)), return_exceptions=True
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["NoneType"] + ["UsernameTaken"] * 5
        assert await opened.credentials.check("ann", f"p{answers.index(None)}")


async def test_a_password_against_the_policy_registers_nobody(house):
    async with house(SOUND) as opened:
        for password in ("test", "password1234", "ann ann ann ann"):
            with pytest.raises(InvalidPassword):
                await opened.registrar.register("ann", password)
        assert await opened.users.none()
        await opened.registrar.register("ann", "goose flute 7 marzipan")
        assert await role(opened, "ann") == "admin"


@pytest.mark.parametrize("policy", [INVITED, CLOSED], ids=lambda policy: policy.registration)
async def test_the_bootstrap_code_is_for_the_first_user_only(house, policy):
    async with house(policy, bootstrap_code=CODE) as opened:
        for wrong in ("", CODE[:-1], CODE + " ", CODE.upper()):
            with pytest.raises(InvitationRefused, match="bootstrap invitation"):
                await opened.registrar.register("ann", "test", invitation=wrong)
        assert await opened.users.none()

        await opened.registrar.register("ann", "test", invitation=CODE)

        assert await role(opened, "ann") == "admin"
        with pytest.raises((InvitationRefused, RegistrationClosed)):
            await opened.registrar.register("bob", "test", invitation=CODE)
        assert await opened.users.user("bob") is None


@pytest.mark.parametrize("policy", [INVITED, CLOSED], ids=lambda policy: policy.registration)
async def test_without_a_bootstrap_code_nobody_is_first(house, policy):
    async with house(policy) as opened:
        with pytest.raises(InvitationRefused):
            await opened.registrar.register("ann", "test", invitation="")


async def test_of_many_with_the_bootstrap_code_one_registers(house):
    async with house(INVITED, bootstrap_code=CODE) as opened:
        answers = await asyncio.gather(
            *(opened.registrar.register(f"user{n}", "test", invitation=CODE) for n in range(6)), return_exceptions=True
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["InvitationRefused"] * 5 + ["NoneType"]


async def test_an_invitation_lets_one_in_with_its_role(house):
    async with house(INVITED, bootstrap_code=CODE) as opened:
        await opened.registrar.register("ann", "test", invitation=CODE)
        plain = await opened.invitations.create(role="user", ttl=None, creator="ann")
        ruling = await opened.invitations.create(role="admin", ttl=None, creator="ann")

        await opened.registrar.register("bob", "test", invitation=plain.code)
        await opened.registrar.register("cid", "test", invitation=ruling.code)

        assert (await role(opened, "bob"), await role(opened, "cid")) == ("user", "admin")
        for code in (plain.code, ruling.code, plain.invitation.id, "", "no such code"):
            with pytest.raises(InvitationRefused):
                await opened.registrar.register("dan", "test", invitation=code)
        created = [event for event in await opened.events() if event[0] == "user.created"]
        assert created[1] == ("user.created", "", "bob", {"role": "user", "invitation": plain.invitation.id})


async def test_an_invitation_ends(house):
    async with house(INVITED, bootstrap_code=CODE) as opened:
        await opened.registrar.register("ann", "test", invitation=CODE)
        made = await opened.invitations.create(role="user", ttl=60, creator="ann")
        opened.clock.now += 60
        with pytest.raises(InvitationRefused, match="expired"):
            await opened.registrar.register("bob", "test", invitation=made.code)


async def test_an_invitation_is_not_used_up_by_what_fails(house):
    policy = Policy(registration=Registration.INVITATION, password_min_length=4)
    async with house(policy, bootstrap_code=CODE) as opened:
        await opened.registrar.register("ann", "test", invitation=CODE)
        made = await opened.invitations.create(role="user", ttl=None, creator="ann")
        for username, password, error in [
            ("b b", "test", InvalidUsername),
            ("bob", "t", InvalidPassword),
            ("ann", "test", UsernameTaken),
        ]:
            with pytest.raises(error):
                await opened.registrar.register(username, password, invitation=made.code)
        await opened.registrar.register("bob", "test", invitation=made.code)


async def test_of_many_with_one_invitation_one_registers(house):
    async with house(INVITED, bootstrap_code=CODE) as opened:
        await opened.registrar.register("ann", "test", invitation=CODE)
        made = await opened.invitations.create(role="user", ttl=None, creator="ann")
        answers = await asyncio.gather(
            *(opened.registrar.register(f"user{n}", "test", invitation=made.code) for n in range(6)),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["InvitationRefused"] * 5 + ["NoneType"]


async def test_who_has_no_invitation_learns_nothing(house):
    """Neither that a name is taken, nor what passwords must be like."""
    async with house(INVITED, bootstrap_code=CODE) as opened:
        await opened.registrar.register("ann", "test", invitation=CODE)
        told = set()
        for username, password in [("ann", "test"), ("bob", "test"), ("bob", "")]:
            with pytest.raises(InvitationRefused) as caught:
                await opened.registrar.register(username, password, invitation="guess")
            told.add(str(caught.value))
        assert len(told) == 1
        assert ("user.denied", "", "", {"reason": "INVITATION_REFUSED"}) in await opened.events()


async def test_closed_is_closed(house):
    async with house(CLOSED, bootstrap_code=CODE) as opened:
        await opened.registrar.register("ann", "test", invitation=CODE)
        with pytest.raises(RegistrationClosed):
            await opened.registrar.register("bob", "test")
        assert (await opened.events())[-1] == ("user.denied", "", "", {"reason": "REGISTRATION_CLOSED"})


async def test_an_invitation_counts_where_registration_is_open(house):
    async with house() as opened:
        await opened.registrar.register("ann", "test")
        made = await opened.invitations.create(role="admin", ttl=None, creator="ann")
        await opened.registrar.register("bob", "test", invitation=made.code)
        assert await role(opened, "bob") == "admin"
        with pytest.raises(InvitationRefused):
            await opened.registrar.register("cid", "test", invitation=made.code)


@pytest.mark.parametrize(
    ("policy", "code", "warnings"),
    [
        (OPEN, "", ["password policy is weak"]),
        (SOUND, "", []),
        (INVITED, CODE, ["password policy is weak"]),
        (CLOSED, "", ["password policy is weak", "registration.impossible"]),
    ],
)
async def test_what_is_said_at_the_start(house, policy, code, warnings):
    async with house(policy, bootstrap_code=code) as opened:
        with structlog.testing.capture_logs() as logs:
            await opened.registrar.announce()
    assert [(log["log_level"], log["event"]) for log in logs] == [("warning", event) for event in warnings]


async def test_who_is_there_already_needs_no_bootstrap(house):
    async with house() as opened:
        await opened.registrar.register("ann", "test")
    async with house(CLOSED) as opened:
        with structlog.testing.capture_logs() as logs:
            await opened.registrar.announce()
    assert [log["event"] for log in logs] == ["password policy is weak"]
