"""The auth service as a process of its own, and on PostgreSQL with a second replica."""

from __future__ import annotations

import asyncio
import shutil
import sys

import grpc
import jwt
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from tests.integration.service_process import auth_process
from uhm_auth.app import MIGRATIONS
from uhm_auth.audit import Event, entry
from uhm_auth.models import VERSION_TABLE, Base
from uhm_auth.stores.sessions import Session, SessionStore
from uhm_auth.stores.users import UserStore
from uhm_common.callers.jwks import auth_service_keys
from uhm_common.callers.verifier import TokenVerifier
from uhm_common.database import Database
from uhm_common.settings import CommonSettings, database_url
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

pytestmark = pytest.mark.integration

ANN = {"username": "ann", "password": "test"}
REFRESH = auth_pb2.RefreshTokenRequest()


def bearer(token):
    return [("authorization", f"Bearer {token}")]


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    return caught.value.details()


@pytest.fixture
def address(free_port) -> str:
    return f"127.0.0.1:{free_port()}"


async def test_users_tokens_and_keys_survive_a_restart(tmp_path, address):
    environment = {"UHM_STATE_DIR": str(tmp_path / "state")}
    async with auth_process(address, **environment) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        issued = await stub.IssueToken(auth_pb2.IssueTokenRequest(**ANN))

    async with auth_process(address, **environment) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        me = await stub.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(issued.access_token))
        assert me.username == "ann"
        assert (await stub.RefreshToken(REFRESH, metadata=bearer(issued.refresh_token))).access_token
        assert (await stub.IssueToken(auth_pb2.IssueTokenRequest(**ANN))).access_token


async def test_another_service_verifies_tokens_with_the_published_keys(tmp_path, address):
    async with auth_process(address, UHM_STATE_DIR=str(tmp_path)) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        issued = await stub.IssueToken(auth_pb2.IssueTokenRequest(**ANN))
        verifier = TokenVerifier(auth_service_keys(channel), issuer="uhmalguhm", audience="uhmalguhm")
        assert (await verifier.identity(dict(bearer(issued.access_token)))).username == "ann"


async def test_a_token_that_expires(tmp_path, address):
    settings = {"UHM_STATE_DIR": str(tmp_path), "UHM_REFRESH_TOKEN_SECONDS": "1"}
    async with auth_process(address, **settings) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        await stub.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        issued = await stub.IssueToken(auth_pb2.IssueTokenRequest(**ANN))
        await asyncio.sleep(1.5)
        assert "expired" in await refused(stub.RefreshToken(REFRESH, metadata=bearer(issued.refresh_token)))


async def test_replicas_that_share_a_database_and_a_key(postgres_url, tmp_path, free_port):
    """A session begun at one is continued, rotated and ended at the other."""
    shared = {"UHM_DATABASE_URL": postgres_url, "UHM_KEY_FILE": str(tmp_path / "auth.key")}
    shared |= {"UHM_STATE_DIR": "/nonexistent", "UHM_REFRESH_GRACE_SECONDS": "0"}
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]

    async with auth_process(addresses[0], **shared) as one, auth_process(addresses[1], **shared) as two:
        first, second = auth_pb2_grpc.AuthServiceStub(one), auth_pb2_grpc.AuthServiceStub(two)
        await first.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        issued = await second.IssueToken(auth_pb2.IssueTokenRequest(**ANN, rotate=True))
        again = await first.RefreshToken(REFRESH, metadata=bearer(issued.refresh_token))
        me = await second.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(again.access_token))
        assert me.username == "ann"
        await asyncio.sleep(1.1)  # past the second in which it was replaced
        assert "used before" in await refused(second.RefreshToken(REFRESH, metadata=bearer(issued.refresh_token)))
        assert "ended" in await refused(first.RefreshToken(REFRESH, metadata=bearer(again.refresh_token)))
        assert (
            jwt.get_unverified_header(issued.access_token)["kid"]
            == (await first.GetKeys(auth_pb2.GetKeysRequest())).keys[0].kid
        )
        assert "wrong" in await refused(first.IssueToken(auth_pb2.IssueTokenRequest(username="a\0b", password="x")))


async def test_a_key_file_that_was_replaced_is_told_of(tmp_path, address):
    async with auth_process(address, UHM_STATE_DIR=str(tmp_path)):
        pass
    (tmp_path / "keys" / "auth.key").write_bytes(b"x" * 32)
    environment = {"PATH": "/usr/bin:/bin", "UHM_LISTEN": address, "UHM_STATE_DIR": str(tmp_path)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uhm_auth", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, told = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 1
    assert "encrypted with another key. Restore the file that UHM_KEY_FILE names" in told.decode()


@pytest.fixture
async def database(postgres_url):
    database = Database(database_url(CommonSettings(database_url=postgres_url), service="auth"))
    migrate = {"migrations": MIGRATIONS, "metadata": Base.metadata, "version_table": VERSION_TABLE}
    await asyncio.gather(*(database.migrate(**migrate) for _ in range(4)))
    yield database
    await database.close()


async def test_models_and_migrations_agree_on_postgresql(database):
    def differences(session):
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(session.connection(), opts=options), Base.metadata)

    async with database.read() as session:
        assert await session.run_sync(differences) == []
        assert await session.scalar(text(f"SELECT count(*) FROM {VERSION_TABLE}")) == 1


@pytest.fixture(params=["sqlite", "postgresql"])
async def former(request, tmp_path):
    """A database of the version before accounts, with two users and a session."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}"
    if request.param == "postgresql":
        settings = CommonSettings(database_url=request.getfixturevalue("postgres_url"))
        url = database_url(settings, service="auth")
    migrations = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    for later in (migrations / "versions").glob("000[2-9]_*.py"):
        later.unlink()
    database = Database(url)
    await database.migrate(migrations=migrations, metadata=Base.metadata, version_table=VERSION_TABLE)
    async with database.write() as session:
        for number, name in ((3, "zoe"), (7, "ann")):
            row = f"({number}, '{name}', '$2b$04$hash', {number}000)"
            await session.execute(
                text(f"INSERT INTO auth_users (id, username, password_hash, created_at) VALUES {row}")
            )
        await session.execute(
            text(
                "INSERT INTO auth_sessions (id, user_id, rotates, token_hash, created_at, expires_at)"
                " VALUES ('s1', 7, false, 'hash', 1, 9999999999)"
            )
        )
    yield database
    await database.close()


async def test_users_of_before_come_along_and_the_first_is_an_administrator(former):
    await former.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)

    users = UserStore(former)
    zoe, ann = await users.user("zoe"), await users.user("ann")
    assert (zoe.role, ann.role) == ("admin", "user")
    assert (ann.created_at, ann.disabled_at, ann.login_at) == (7000, None, None)
    assert await SessionStore(former, told_seconds=100, most=3).session("s1") is None
    async with users.changing() as transaction:
        await users.add(transaction, "bob", password_hash="hash", role="user", now=1)
    assert (await users.user("bob")).role == "user"


async def add_ann(database, password_hash="hash"):
    users = UserStore(database)
    async with users.changing() as transaction:
        await users.add(transaction, "ann", password_hash=password_hash, role="user", now=1)
    return await users.user("ann")


async def test_races_on_postgresql(database):
    answers = await asyncio.gather(*(add_ann(database, f"h{n}") for n in range(10)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["User"] + ["UsernameTaken"] * 9

    ann, store = await UserStore(database).user("ann"), SessionStore(database, told_seconds=100, most=3)
    session = Session(
        id="s1",
        username="ann",
        role="user",
        rotates=True,
        token_id="t1",
        token_issued_at=100,
        created_at=100,
        used_at=100,
        expires_at=200,
    )
    began = entry(Event.LOGIN_SUCCEEDED, username="ann")
    await store.add(session, user=ann, entry=began, told=lambda _: began)
    replaced = await asyncio.gather(
        *(store.replace_token(session, token_id=f"n{n}", now=110, expires_at=300) for n in range(10))
    )
    assert sorted(replaced) == [False] * 9 + [True]
    ended = entry(Event.SESSION_REVOKED, username="ann")
    revoked = await asyncio.gather(
        *(store.revoke("s1", username="ann", now=150 + n, entry=ended) for n in range(10)), return_exceptions=True
    )
    assert sorted(revoked) == [False] * 9 + [True]
    assert (await store.session("s1")).revoked_at == 150 + revoked.index(True)
    assert await store.delete_expired(now=300) == 1
    assert await store.session("s1") is None


async def test_of_many_logins_at_once_not_too_many_go_on_on_postgresql(database):
    ann, store = await add_ann(database), SessionStore(database, told_seconds=100, most=3)
    began = entry(Event.LOGIN_SUCCEEDED, username="ann")

    async def log_in(number: int) -> int:
        session = Session(
            id=f"s{number}",
            username="ann",
            role="user",
            rotates=False,
            token_id=f"t{number}",
            token_issued_at=100,
            created_at=100,
            used_at=100,
            expires_at=200,
        )
        return await store.add(session, user=ann, entry=began, told=lambda _: began)

    ended = await asyncio.gather(*(log_in(number) for number in range(10)))

    assert sorted(ended) == [0] * 3 + [1] * 7
    assert len(await store.page("ann", after=None, limit=10, now=100)) == 3


async def test_a_connection_that_the_server_closed_is_replaced(database):
    users = UserStore(database)
    assert await users.user("ann") is None
    async with database.write() as session:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        await session.execute(text(f"{others} AND pid <> pg_backend_pid()"))
    assert await asyncio.gather(*(users.user("ann") for _ in range(4))) == [None] * 4
