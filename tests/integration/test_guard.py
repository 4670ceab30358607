"""What protects accounts, asked of the real auth service: guesses, API keys, the audit log, and what is not told."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from uhm_auth.audit import Event
from uhm_auth.models import Base
from uhm_common.callers.calls import CLIENT_ADDRESS, REQUEST_ID
from uhm_common.callers.verifier import remote_verification
from uhm_common.database import Database
from uhm_common.errors import Unauthenticated
from uhm_common.settings import CommonSettings, database_url
from uhmalguhm.auth.v1 import (
    api_key_pb2,
    api_key_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    auth_pb2,
    auth_pb2_grpc,
    user_pb2,
    user_pb2_grpc,
)

pytestmark = pytest.mark.integration

BOOTSTRAP = "canary-bootstrap-invitation"
WRONG = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
REVOKED_SECONDS = 5
TIMINGS = 200


@dataclass(frozen=True)
class Auth:
    """A running auth service."""

    channel: grpc.aio.Channel
    address: str
    state: Path
    log: Path

    @property
    def auth(self) -> auth_pb2_grpc.AuthServiceStub:
        return auth_pb2_grpc.AuthServiceStub(self.channel)

    @property
    def users(self) -> user_pb2_grpc.UserServiceStub:
        return user_pb2_grpc.UserServiceStub(self.channel)

    @property
    def keys(self) -> api_key_pb2_grpc.ApiKeyServiceStub:
        return api_key_pb2_grpc.ApiKeyServiceStub(self.channel)

    async def register(self, username, password, **more):
        await self.auth.CreateUser(auth_pb2.CreateUserRequest(username=username, password=password, **more))

    async def log_in(self, username, password, *, address="192.0.2.1", rotate=False):
        request = auth_pb2.IssueTokenRequest(username=username, password=password, rotate=rotate)
        return await self.auth.IssueToken(request, metadata=((CLIENT_ADDRESS, address),))

    async def events(self, token, **wanted) -> list[audit_pb2.Event]:
        """All pages."""
        stub, found, page_token = audit_pb2_grpc.AuditServiceStub(self.channel), [], ""
        while True:
            request = audit_pb2.ListEventsRequest(page_size=7, page_token=page_token, **wanted)
            answer = await stub.ListEvents(request, metadata=bearer(token))
            found += answer.events
            if not (page_token := answer.next_page_token):
                return found


def bearer(token) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"), (CLIENT_ADDRESS, "192.0.2.1"), (REQUEST_ID, "request-7"))


@pytest.fixture
def running(free_port, tmp_path):
    """Starts auth services, with a cheap cost and everything logged."""

    @asynccontextmanager
    async def run(**environment):
        address = f"127.0.0.1:{free_port()}"
        state = tmp_path / address.rpartition(":")[2]
        defaults = {"UHM_STATE_DIR": str(state), "UHM_BCRYPT_COST": "4", "UHM_NATS_URL": "nats://127.0.0.1:9"}
        log = tmp_path / f"{state.name}.log"
        with log.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "uhm_auth",
                env={
                    "PATH": "/usr/bin:/bin",
                    "UHM_LISTEN": address,
                    "UHM_LOG_LEVEL": "debug",
                    **defaults,
                    **environment,
                },
                stdout=output,
                stderr=output,
            )
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), 30)
                yield Auth(channel, address, state, log)
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 10) == 0
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    return run


@pytest.fixture(params=["sqlite", "postgresql"])
def database_setting(request) -> dict[str, str]:
    """Where the service keeps what it keeps."""
    if request.param == "sqlite":
        return {}
    return {"UHM_DATABASE_URL": request.getfixturevalue("postgres_url")}


async def refusal(call, *codes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() in (codes or WRONG), caught.value
    return caught.value


def retry_after(error: grpc.aio.AioRpcError) -> int:
    """What the status says, in seconds."""
    packed = next(value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin")
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status_pb2.Status.FromString(packed).details)
    return retry.retry_delay.ToSeconds()


@dataclass
class Walk:
    """Does everything that the audit log tells of, and remembers every secret that was sent or answered."""

    auth: Auth
    secrets: set[str] = field(default_factory=lambda: {BOOTSTRAP})
    admin: str = ""

    def password(self, name: str) -> str:
        self.secrets.add(secret := f"canary-{name}-Tr0mbone!7")
        return secret

    async def log_in(self, username, password, **options):
        issued = await self.auth.log_in(username, password, **options)
        self.secrets |= {issued.access_token, issued.refresh_token}
        return issued

    async def registration(self) -> None:
        await refusal(self.auth.register("eve", self.password("eve")))
        await self.auth.register("ann", self.password("ann"), invitation=BOOTSTRAP)
        self.admin = (await self.log_in("ann", self.password("ann"))).access_token
        made = [
            await self.auth.users.CreateInvitation(user_pb2.CreateInvitationRequest(), metadata=bearer(self.admin))
            for _ in range(2)
        ]
        self.secrets |= {each.code for each in made}
        await self.auth.register("bob", self.password("bob"), invitation=made[0].code)
        withdrawn = user_pb2.DeleteInvitationRequest(id=made[1].invitation.id)
        await self.auth.users.DeleteInvitation(withdrawn, metadata=bearer(self.admin))
        await refusal(self.auth.register("carl", self.password("carl"), invitation=made[1].code))
        confused = [
            self.auth.register(self.password("typed as name"), "test"),
            self.auth.users.DeleteInvitation(
                user_pb2.DeleteInvitationRequest(id=made[1].code), metadata=bearer(self.admin)
            ),
            self.auth.auth.DeleteSession(auth_pb2.DeleteSessionRequest(id=self.admin), metadata=bearer(self.admin)),
        ]
        for call in confused:
            await refusal(call, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)

    async def guesses(self) -> None:
        await refusal(self.auth.log_in("bob", self.password("wrong")))
        mistaken = self.password("typed-as-username").replace("!", "")
        self.secrets.add(mistaken)
        for _ in range(9):
            await refusal(
                self.auth.log_in(mistaken, self.password("wrong"), address="203.0.113.9"),
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )

    async def passwords(self) -> None:
        token = (await self.log_in("bob", self.password("bob"))).access_token
        wrong = auth_pb2.ChangePasswordRequest(
            current_password=self.password("wrong"), new_password=self.password("new")
        )
        await refusal(self.auth.auth.ChangePassword(wrong, metadata=bearer(token)))
        right = auth_pb2.ChangePasswordRequest(current_password=self.password("bob"), new_password=self.password("new"))
        changed = await self.auth.auth.ChangePassword(right, metadata=bearer(token))
        self.secrets |= {changed.access_token, changed.refresh_token}
        reset = user_pb2.CreatePasswordResetRequest(username="bob")
        code = (await self.auth.users.CreatePasswordReset(reset, metadata=bearer(self.admin))).code
        self.secrets.add(code)
        for tried, good in ((self.password("code"), False), (code, True)):
            request = auth_pb2.ResetPasswordRequest(username="bob", code=tried, new_password=self.password("newer"))
            call = self.auth.auth.ResetPassword(request)
            await (call if good else refusal(call))

    async def sessions(self) -> None:
        rotating = await self.log_in("bob", self.password("newer"), rotate=True)
        first = token = rotating.refresh_token
        for _ in range(2):
            again = await self.auth.auth.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(token))
            self.secrets |= {again.access_token, token := again.refresh_token}
        await refusal(self.auth.auth.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(first)))
        for everywhere in (False, True):
            token = (await self.log_in("bob", self.password("newer"))).access_token
            await self.auth.auth.RevokeToken(auth_pb2.RevokeTokenRequest(everywhere=everywhere), metadata=bearer(token))

    async def api_keys(self) -> None:
        token = (await self.log_in("bob", self.password("newer"))).access_token
        request = api_key_pb2.CreateApiKeyRequest(name="ci", scopes=["account.read"])
        made = await self.auth.keys.CreateApiKey(request, metadata=bearer(token))
        self.secrets.add(made.key.rpartition(f"{made.api_key.id}_")[2])
        await self.auth.auth.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(made.key))
        mistaken = api_key_pb2.DeleteApiKeyRequest(id=made.key)
        await refusal(self.auth.keys.DeleteApiKey(mistaken, metadata=bearer(token)), grpc.StatusCode.NOT_FOUND)
        await self.auth.keys.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(id=made.api_key.id), metadata=bearer(token))
        await refusal(self.auth.auth.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(made.key)))

    async def administration(self) -> None:
        token = (await self.log_in("bob", self.password("newer"))).access_token
        await refusal(self.auth.events(token), grpc.StatusCode.PERMISSION_DENIED)
        await self.auth.auth.RotateKeys(auth_pb2.RotateKeysRequest(), metadata=bearer(self.admin))
        change = user_pb2.UpdateUserRequest(user=user_pb2.User(username="bob", disabled=True))
        await self.auth.users.UpdateUser(change, metadata=bearer(self.admin))
        await refusal(self.auth.log_in("bob", self.password("newer")), grpc.StatusCode.PERMISSION_DENIED)
        await self.auth.users.DeleteUser(user_pb2.DeleteUserRequest(username="bob"), metadata=bearer(self.admin))


async def stored(url: str) -> str:
    """All that is in the database, as text."""
    database = Database(url)
    try:
        async with database.read() as session:
            rows = [row for table in Base.metadata.sorted_tables for row in await session.execute(table.select())]
    finally:
        await database.close()
    return "\n".join(str(tuple(row)) for row in rows)


async def test_every_event_is_recorded_and_no_secret_is_anywhere(running, database_setting):
    """Everything that the log tells of happens once; then neither the database nor the logs have a secret in them."""
    async with running(UHM_REGISTRATION="invitation", UHM_BOOTSTRAP_INVITATION=BOOTSTRAP, **database_setting) as auth:
        walk = Walk(auth)
        for part in (
            walk.registration,
            walk.guesses,
            walk.passwords,
            walk.sessions,
            walk.api_keys,
            walk.administration,
        ):
            await part()
        events = await auth.events(walk.admin)
        of_bob = await auth.events(walk.admin, username="bob")

    assert {event.event for event in events} == set(Event)
    numbers = [int(event.id) for event in events]
    assert numbers == sorted(numbers, reverse=True)
    deleted = next(event for event in events if event.event == "user.deleted")
    assert (deleted.actor, deleted.username, deleted.request_id) == ("ann", "bob", "request-7")
    assert deleted.address == "192.0.2.1"
    assert of_bob == [event for event in events if "bob" in (event.username, event.actor)]

    settings = CommonSettings(state_dir=auth.state, database_url=database_setting.get("UHM_DATABASE_URL", ""))
    places = {"the log": auth.log.read_text(), "the database": await stored(database_url(settings, service="auth"))}
    places |= {
        path.name: path.read_bytes().decode(errors="replace") for path in auth.state.rglob("*") if path.is_file()
    }
    assert "request-7" in places["the log"]
    assert "api_key.created" in places["the database"]
    assert len(walk.secrets) > 25
    assert [(name, secret) for name, found in places.items() for secret in walk.secrets if secret in found] == []


@pytest.mark.parametrize(
    "change", ["UPDATE auth_audit_events SET actor = ''", "DELETE FROM auth_audit_events", "TRUNCATE auth_audit_events"]
)
async def test_nothing_in_the_audit_log_is_changed_on_postgresql(running, postgres_url, change):
    async with running(UHM_DATABASE_URL=postgres_url) as auth:
        await auth.register("ann", "test")
        database = Database(database_url(CommonSettings(database_url=postgres_url), service="auth"))
        try:
            with pytest.raises(DBAPIError, match="append-only"):
                async with database.write() as session:
                    await session.execute(text(change))
        finally:
            await database.close()
        token = (await auth.log_in("ann", "test")).access_token
        assert [event.event for event in await auth.events(token)] == ["login.succeeded", "user.created"]


async def test_a_database_that_is_away_for_a_while(running, postgres, postgres_url):
    """Calls are told to try again, nothing that runs beside them gives up, and what was stored is there."""
    async with running(UHM_DATABASE_URL=postgres_url) as auth:
        await auth.register("ann", "test")
        postgres.halt()
        try:
            for _ in range(8):  # in the rhythm of what polls, and longer than it waits
                error = await refusal(auth.log_in("ann", "test"), grpc.StatusCode.UNAVAILABLE)
                assert error.details().startswith("The database does not answer.")
                await asyncio.sleep(0.4)
        finally:
            postgres.run()
        token = (await auth.log_in("ann", "test")).access_token
        assert (await auth.events(token))[-1].event == "user.created"


async def test_a_hundred_guesses_at_once_over_two_replicas(running, postgres_url):
    """Five are looked at, and those that the wait of a few seconds lets through; others are told when to come again."""
    async with running(UHM_DATABASE_URL=postgres_url) as one:
        shared = {"UHM_DATABASE_URL": postgres_url, "UHM_STATE_DIR": str(one.state)}
        async with running(**shared) as two:
            await one.register("ann", "test")
            calls = [(one, two)[number % 2].log_in("ann", f"guess{number}") for number in range(100)]
            refusals = await asyncio.gather(*calls, return_exceptions=True)
            looked_at = [error for error in refusals if error.code() is grpc.StatusCode.UNAUTHENTICATED]
            limited = [error for error in refusals if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
            assert len(looked_at) + len(limited) == 100
            assert 5 <= len(looked_at) <= 7
            assert all(1 <= retry_after(error) <= 4 for error in limited)
            assert (await one.log_in("ann", "test", address="192.0.2.200")).access_token


async def test_right_logins_do_not_count(running):
    """Twice as many at once, and many times as many in a row, as may fail."""
    async with running() as auth:
        await auth.register("ann", "test")
        await asyncio.gather(*(auth.log_in("ann", "test") for _ in range(10)))
        for _ in range(30):
            await auth.log_in("ann", "test")


async def test_limits_are_the_same_for_who_does_not_exist(running):
    answers = {}
    async with running() as auth:
        await auth.register("ann", "test")
        for name in ("ann", "bob"):
            errors = [
                await refusal(auth.log_in(name, "wrong"), *WRONG, grpc.StatusCode.RESOURCE_EXHAUSTED) for _ in range(9)
            ]
            answers[name] = [(error.code(), error.details(), shown_metadata(error)) for error in errors]
    assert answers["ann"] == answers["bob"]
    assert [code.name for code, *_ in answers["ann"]] == ["UNAUTHENTICATED"] * 7 + ["RESOURCE_EXHAUSTED"] * 2


async def test_a_deleted_api_key_is_refused_by_every_service_within_seconds(running, database_setting):
    """By one that has verified it just before, and keeps what it knows for a minute."""
    async with running(**database_setting) as auth:
        await auth.register("ann", "test")
        token = (await auth.log_in("ann", "test")).access_token
        request = api_key_pb2.CreateApiKeyRequest(name="ci", scopes=["images.write"])
        made = await auth.keys.CreateApiKey(request, metadata=bearer(token))
        settings = CommonSettings(state_dir=auth.state, auth_address=auth.address)
        async with remote_verification(settings) as service:
            follower = asyncio.create_task(service.follower.run())
            try:
                identity = await service.verifier.identity(dict(bearer(made.key)))
                assert (identity.username, identity.scopes) == ("ann", {"images.write"})

                await auth.keys.DeleteApiKey(
                    api_key_pb2.DeleteApiKeyRequest(id=made.api_key.id), metadata=bearer(token)
                )
                deadline = time.monotonic() + REVOKED_SECONDS
                while await is_good(service.verifier, made.key):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.1)
            finally:
                follower.cancel()
                await asyncio.gather(follower, return_exceptions=True)


async def is_good(verifier, key) -> bool:
    try:
        await verifier.identity(dict(bearer(key)))
    except Unauthenticated:
        return False
    return True


def shown_metadata(error: grpc.aio.AioRpcError) -> tuple[list, list]:
    return sorted(error.initial_metadata() or ()), sorted(error.trailing_metadata() or ())


async def test_known_and_unknown_users_cannot_be_told_apart(running):
    """By what is answered, and by how long 200 wrong logins of each take, in turn and in random order.

    A rank test does not mind that some calls of a busy machine take long. It is asked twice at most: what happens by
    chance once in ten thousand times does not happen twice.
    """
    unlimited = {f"UHM_THROTTLE_{kind}_FREE": "1000000" for kind in ("PAIR", "USERNAME", "ADDRESS", "EVERYWHERE")}
    async with running(UHM_BCRYPT_COST="7", **unlimited) as auth:  # most of the time, so that one round more is seen
        await auth.register("ann", "test")
        await auth.log_in("ann", "test")

        async def attempt(name: str) -> tuple[float, tuple]:
            started = time.perf_counter()
            error = await refusal(auth.log_in(name, "wrong", address="192.0.2.9"))
            return time.perf_counter() - started, (error.code(), error.details(), str(shown_metadata(error)))

        async def probability() -> float:
            timings, answers = {"ann": [], "bob": []}, set()
            for _ in range(20):
                await attempt("ann")
            for _ in range(TIMINGS):
                for name in random.sample(["ann", "bob"], 2):
                    seconds, answer = await attempt(name)
                    timings[name].append(seconds)
                    answers.add(answer)
            assert len(answers) == 1
            return chance(timings["ann"], timings["bob"])

        assert await probability() > 1e-4 or await probability() > 1e-4


def chance(some: list[float], others: list[float]) -> float:
    """How likely two samples of one distribution are as far apart as these (Mann-Whitney U, two-sided, of many)."""
    ranked = sorted([(value, 0) for value in some] + [(value, 1) for value in others])
    rank_sum = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(some), len(others)
    u = rank_sum - n * (n + 1) / 2
    return math.erfc(abs(u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12) / math.sqrt(2))


def test_the_rank_test_sees_what_it_should():
    """A tenth of the usual time more is seen under heavy noise; no difference is not."""
    noise = random.Random(7)
    timing = lambda shift: shift + noise.lognormvariate(0, 0.2) + (5 if noise.random() < 0.05 else 0)  # noqa: E731
    same = [chance([timing(0) for _ in range(TIMINGS)], [timing(0) for _ in range(TIMINGS)]) for _ in range(200)]
    different = chance([timing(0) for _ in range(TIMINGS)], [timing(0.1) for _ in range(TIMINGS)])
    assert min(same) > 1e-4
    assert different < 1e-4
