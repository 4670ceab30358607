"""Accounts under several replicas at once, on SQLite and PostgreSQL, and as a process whose NATS comes late."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import grpc
import pytest

from tests.integration.service_process import auth_process
from tests.unit.auth.house import open_house
from uhm_auth.accounts import Change
from uhm_auth.errors import (
    InvitationRefused,
    LastAdministrator,
    NoAdministrator,
    SessionEnded,
    WrongCredentials,
    WrongResetCode,
)
from uhm_auth.policy import Policy, Registration
from uhm_common.events import USERS_DELETED, USERS_STREAM, EventBus
from uhm_common.settings import CommonSettings, database_url
from uhm_common.subscription import Subscription
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc, user_pb2, user_pb2_grpc

pytestmark = pytest.mark.integration

REPLICAS = 3
CODE = "the code of the one who set it up"
DEMOTE, DISABLE, PROMOTE = Change(role="user"), Change(disabled=True), Change(role="admin")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}"
    settings = CommonSettings(database_url=request.getfixturevalue("postgres_url"))
    return database_url(settings, service="auth")


@pytest.fixture
async def replicas(url):
    """Opens replicas that share the database."""
    async with AsyncExitStack() as stack:

        async def opened(**options) -> list:
            return [await stack.enter_async_context(open_house(url, **options)) for _ in range(REPLICAS)]

        yield opened


def outcomes(answers) -> dict[str, int]:
    """How often each kind of answer came."""
    names = [type(answer).__name__ if isinstance(answer, Exception) else "done" for answer in answers]
    return {name: names.count(name) for name in names}


async def at_once(*calls) -> list:
    return await asyncio.gather(*calls, return_exceptions=True)


async def everybody(house) -> list:
    return list((await house.accounts.page(size=1000, token="")).users)


async def test_of_many_first_users_one_is_an_administrator(replicas):
    houses = await replicas()
    answers = await at_once(*(houses[n % REPLICAS].registrar.register(f"user{n}", "test") for n in range(30)))
    assert outcomes(answers) == {"done": 30}
    assert sorted(user.role for user in await everybody(houses[0])) == ["admin"] + ["user"] * 29


async def test_of_many_with_the_bootstrap_code_one_registers(replicas):
    policy = Policy(registration=Registration.CLOSED)
    houses = await replicas(policy=policy, bootstrap_code=CODE)
    answers = await at_once(
        *(houses[n % REPLICAS].registrar.register(f"user{n}", "test", invitation=CODE) for n in range(12))
    )
    refused = outcomes(answers)
    assert refused.pop("done") == 1
    assert set(refused) <= {"InvitationRefused", "RegistrationClosed"}
    assert [user.role for user in await everybody(houses[0])] == ["admin"]


async def test_an_invitation_used_at_once_lets_one_in(replicas):
    houses = await replicas(policy=Policy(registration=Registration.INVITATION), bootstrap_code=CODE)
    await houses[0].registrar.register("ann", "test", invitation=CODE)
    for _ in range(4):
        made = await houses[0].invitations.create(role="user", ttl=None, creator="ann")
        before = len(await everybody(houses[0]))
        answers = await at_once(
            *(
                house.registrar.register(f"{made.invitation.id[:8]}-{n}", "test", invitation=made.code)
                for n, house in enumerate(houses * 2)
            )
        )
        assert outcomes(answers) == {"done": 1, InvitationRefused.__name__: 2 * REPLICAS - 1}
        assert len(await everybody(houses[0])) == before + 1


async def test_an_invitation_withdrawn_while_it_is_used(replicas):
    """One of both happens, never both."""
    houses = await replicas(policy=Policy(registration=Registration.INVITATION), bootstrap_code=CODE)
    await houses[0].registrar.register("ann", "test", invitation=CODE)
    for number in range(6):
        made = await houses[0].invitations.create(role="user", ttl=None, creator="ann")
        answers = await at_once(
            houses[1].registrar.register(f"user{number}", "test", invitation=made.code),
            houses[2].invitations.delete(made.invitation.id, actor="ann"),
        )
        assert outcomes(answers)["done"] == 1


@pytest.mark.parametrize("change", [DEMOTE, DISABLE], ids=["demote", "disable"])
@pytest.mark.parametrize(
    ("actors", "refusal"),
    [(("bob", "cid", "ann"), NoAdministrator), (("ann", "bob", "cid"), LastAdministrator)],
    ids=["each other", "themselves"],
)
async def test_of_administrators_who_depose_each_other_one_stays(replicas, change, actors, refusal):
    houses = await replicas()
    names = ["ann", "bob", "cid"]
    for name in names:
        await houses[0].registrar.register(name, "test")
    for _ in range(4):
        (ruling,) = [user.username for user in await everybody(houses[0]) if user.administers]
        for name in names:
            await houses[0].accounts.update(name, Change(role="admin", disabled=False), actor=ruling)

        answers = await at_once(
            *(
                house.accounts.update(name, change, actor=actor)
                for house, name, actor in zip(houses, names, actors, strict=True)
            )
        )

        assert outcomes(answers) == {"done": 2, refusal.__name__: 1}
        assert sum(user.administers for user in await everybody(houses[0])) == 1


async def test_one_leaves_while_another_is_demoted(replicas):
    houses = await replicas()
    for name in ("ann", "bob"):
        await houses[0].registrar.register(name, "test")
    await houses[0].accounts.update("bob", PROMOTE, actor="ann")
    answers = await at_once(
        houses[1].accounts.delete_caller("ann", "test"), houses[2].accounts.update("bob", DEMOTE, actor="bob")
    )
    assert outcomes(answers) == {"done": 1, LastAdministrator.__name__: 1}
    assert sum(user.administers for user in await everybody(houses[0])) == 1


async def test_no_session_outlives_a_change_of_the_password(replicas):
    """Logins with the old password at the same moment begin nothing, or a session that has ended."""
    houses = await replicas(free_guesses=100)
    await houses[0].registrar.register("ann", "pass 0")
    for number in range(5):
        old, new = f"pass {number}", f"pass {number + 1}"
        caller, _ = await houses[0].log_in("ann", old)
        changing = houses[0].password_changes.change(caller, current=old, new=new)
        issued, *logins = await at_once(changing, *(house.log_in("ann", old) for house in houses * 2))
        assert (await houses[1].sessions.refresh(issued.refresh)).access
        for login in logins:
            if isinstance(login, Exception):
                assert isinstance(login, WrongCredentials)
                continue
            with pytest.raises(SessionEnded):
                await houses[1].sessions.refresh(login[1])


async def test_logins_of_one_user_at_once(replicas):
    """They note the time in the same row."""
    houses = await replicas(free_guesses=100)
    await houses[0].registrar.register("ann", "test")
    assert outcomes(await at_once(*(house.log_in("ann") for house in houses * 6))) == {"done": 6 * REPLICAS}


async def test_a_reset_code_used_at_once_counts_once(replicas):
    houses = await replicas()
    await houses[0].registrar.register("ann", "test")
    made = await houses[0].password_changes.create_reset("ann", ttl=None, actor="ann")
    answers = await at_once(
        *(house.password_changes.reset("ann", code=made.code, new=f"new {n}") for n, house in enumerate(houses))
    )
    assert outcomes(answers) == {"done": 1, WrongResetCode.__name__: REPLICAS - 1}
    assert await houses[0].credentials.check("ann", f"new {answers.index(None)}")


async def test_a_deletion_waits_for_nats_and_is_told_then(tmp_path, free_port, nats_server):
    """The service starts, serves and deletes while NATS is down."""
    settings = {"UHM_STATE_DIR": str(tmp_path), "UHM_NATS_URL": nats_server.url}
    heard: asyncio.Queue[tuple[str, dict]] = asyncio.Queue()
    begun = int(time.time())

    async def hear(subject: str, payload: dict) -> None:
        heard.put_nowait((subject, payload))

    async with auth_process(f"127.0.0.1:{free_port()}", **settings) as channel:
        auth, users = auth_pb2_grpc.AuthServiceStub(channel), user_pb2_grpc.UserServiceStub(channel)
        for name in ("ann", "bob"):
            await auth.CreateUser(auth_pb2.CreateUserRequest(username=name, password="test"))
        issued = await auth.IssueToken(auth_pb2.IssueTokenRequest(username="ann", password="test"))
        delete = user_pb2.DeleteUserRequest(username="bob")
        await users.DeleteUser(delete, metadata=[("authorization", f"Bearer {issued.access_token}")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth.IssueToken(auth_pb2.IssueTokenRequest(username="bob", password="test"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

        nats_server.start()

        events = EventBus(nats_server.url, name="test")
        subscription = Subscription(events=events, stream=USERS_STREAM, subjects=[USERS_DELETED], durable="test")
        running = [asyncio.create_task(events.run()), asyncio.create_task(subscription.run(hear))]
        try:
            subject, payload = await asyncio.wait_for(heard.get(), 30)
            assert (subject, payload.pop("username")) == (USERS_DELETED, "bob")
            assert begun <= payload.pop("deleted_at") <= time.time()
            assert payload == {}
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
