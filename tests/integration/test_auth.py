"""The auth service as a process of its own, and on PostgreSQL with a second replica."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager

import grpc
import jwt
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from uhm_auth.app import MIGRATIONS
from uhm_auth.models import VERSION_TABLE, Base
from uhm_auth.store import AuthStore, Session
from uhm_common.database import Database
from uhm_common.identity import AuthServiceKeys, TokenVerifier
from uhm_common.settings import CommonSettings, database_url
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

pytestmark = pytest.mark.integration

ANN = {"username": "ann", "password": "test"}
REFRESH = auth_pb2.RefreshTokenRequest()


def bearer(token):
    return [("authorization", f"Bearer {token}")]


@asynccontextmanager
async def auth_process(address, **environment):
    """`python -m uhm_auth`, answering, with a channel to it; ended with SIGTERM, which must succeed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "uhm_auth",
        env={"PATH": "/usr/bin:/bin", "UHM_LISTEN": address, "UHM_BCRYPT_COST": "4", **environment},
    )
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
            yield channel
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 10) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


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
        verifier = TokenVerifier(AuthServiceKeys(channel), issuer="uhmalguhm", audience="uhmalguhm")
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
    key = tmp_path / "signing.pem"
    async with auth_process(f"127.0.0.1:{free_port()}", UHM_STATE_DIR=str(tmp_path / "first")):
        key.write_bytes((tmp_path / "first" / "auth" / "keys" / "signing.pem").read_bytes())
    shared = {"UHM_DATABASE_URL": postgres_url, "UHM_SIGNING_KEY_FILE": str(key), "UHM_STATE_DIR": "/nonexistent"}
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]

    async with auth_process(addresses[0], **shared) as one, auth_process(addresses[1], **shared) as two:
        first, second = auth_pb2_grpc.AuthServiceStub(one), auth_pb2_grpc.AuthServiceStub(two)
        await first.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        issued = await second.IssueToken(auth_pb2.IssueTokenRequest(**ANN, rotate=True))
        again = await first.RefreshToken(REFRESH, metadata=bearer(issued.refresh_token))
        me = await second.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bearer(again.access_token))
        assert me.username == "ann"
        assert "used before" in await refused(second.RefreshToken(REFRESH, metadata=bearer(issued.refresh_token)))
        assert "ended" in await refused(first.RefreshToken(REFRESH, metadata=bearer(again.refresh_token)))
        assert (
            jwt.get_unverified_header(issued.access_token)["kid"]
            == (await first.GetKeys(auth_pb2.GetKeysRequest())).keys[0].kid
        )
        assert "wrong" in await refused(first.IssueToken(auth_pb2.IssueTokenRequest(username="a\0b", password="x")))


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


async def test_races_on_postgresql(database):
    store = AuthStore(database)
    answers = await asyncio.gather(*(store.add_user("ann", f"h{n}", now=1) for n in range(10)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType"] + ["UsernameTaken"] * 9

    ann = await store.user("ann")
    session = Session(id="s1", username="ann", rotates=True, token_hash="h1", expires_at=200)
    await store.add_session(session, user_id=ann.id, now=100)
    replaced = await asyncio.gather(
        *(store.replace_token("s1", old_hash="h1", new_hash=f"n{n}", expires_at=300) for n in range(10))
    )
    assert sorted(replaced) == [False] * 9 + [True]
    await store.revoke_session("s1", now=150)
    assert (await store.session("s1")).revoked_at == 150
    assert await store.delete_expired_sessions(now=300) == 1
    assert await store.session("s1") is None


async def test_a_connection_that_the_server_closed_is_replaced(database):
    store = AuthStore(database)
    assert await store.user("ann") is None
    async with database.write() as session:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        await session.execute(text(f"{others} AND pid <> pg_backend_pid()"))
    assert await asyncio.gather(*(store.user("ann") for _ in range(4))) == [None] * 4
