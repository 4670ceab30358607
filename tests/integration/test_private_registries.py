"""Private registries: Debian's docker-registry behind TLS, with passwords and tokens; several users of one builder."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.integration.builder_system import MKFS, builder_system
from tests.integration.private_registries import Authority, TokenServer, private_registry
from uhm_builder.errors import NoSuchRegistry, RegistryDenied, RegistryUnreachable
from uhm_builder.hosts import HostRules
from uhm_builder.models import VERSION_TABLE, Base
from uhm_builder.parts import MIGRATIONS
from uhm_builder.registries import Registries, RegistryWish
from uhm_builder.sources.challenge import Credentials
from uhm_builder.sources.clients import RegistryClients
from uhm_builder.sources.reference import parse_reference
from uhm_builder.sources.registry import Account
from uhm_common.database import Database
from uhm_common.paging import PageTokens
from uhm_common.vault import open_vault
from uhmalguhm.builder.v1 import registry_pb2, registry_pb2_grpc

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
]

PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def host(tmp_path_factory, authority, mirror):
    """A registry that wants passwords."""
    with private_registry(tmp_path_factory.mktemp("registry") / "r", authority, passwords=PASSWORDS) as host:
        yield host


@pytest.fixture(scope="module")
def token_server(authority):
    server = TokenServer(authority, passwords=PASSWORDS, identity_tokens={"refresh-me": "alice"}, asked=[])
    with server.serving():
        yield server


@pytest.fixture(scope="module")
def token_host(tmp_path_factory, authority, token_server, mirror):
    """A registry that wants tokens."""
    with private_registry(tmp_path_factory.mktemp("registry") / "r", authority, tokens=token_server) as host:
        yield host


class Users:
    """What users can do, on a builder's parts."""

    def __init__(self, registries: Registries, clients: RegistryClients) -> None:
        self.registries = registries
        self.clients = clients

    async def add(self, owner: str, *, test: bool = True, **wish: str) -> None:
        await self.registries.add(RegistryWish(**wish), owner=owner, clients=self.clients if test else None)

    async def pull(self, owner: str, reference: str) -> bytes:
        """The image's manifest, of which its configuration is read too."""

        async def account(host: str):
            return await self.registries.account(host, owner=owner)

        client = self.clients.open(account)
        try:
            _, manifest, _ = await client.manifest(parse_reference(reference))
            return manifest
        finally:
            await client.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def users(request, tmp_path):
    sqlite = f"sqlite+aiosqlite:///{tmp_path / 'builder.db'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url.replace("postgresql://", "postgresql+asyncpg://"))
    await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
    clients = RegistryClients(mirrors={}, credentials={}, rules=HostRules())
    vault = open_vault(tmp_path / "key")
    yield Users(Registries(database=database, vault=vault, page_tokens=PageTokens(vault)), clients)
    await database.close()


async def test_each_user_has_credentials_of_their_own(users, host, authority):
    hello = f"{host}/library/hello"
    await users.add("alice", host=host, username="alice", password=PASSWORDS["alice"], ca_certificate=authority.pem)
    await users.add("carol", host=host, ca_certificate=authority.pem, test=False)

    assert b"layers" in await users.pull("alice", hello)
    with pytest.raises(RegistryDenied, match="there are none for it"):
        await users.pull("carol", hello)
    with pytest.raises(RegistryUnreachable, match="If it speaks TLS"):  # plain HTTP, as on loopback
        await users.pull("dave", hello)

    await users.registries.delete(host, owner="alice")

    with pytest.raises(RegistryUnreachable):
        await users.pull("alice", hello)
    with pytest.raises(NoSuchRegistry):
        await users.registries.delete(host, owner="alice")


async def test_credentials_are_tried_when_they_are_given(users, host, authority):
    wrong = {"host": host, "username": "alice", "password": "wrong", "ca_certificate": authority.pem}
    with pytest.raises(RegistryDenied) as denied:
        await users.add("alice", **wrong)
    assert "wrong" not in str(denied.value)
    with pytest.raises(NoSuchRegistry):
        await users.registries.get(host, owner="alice")

    await users.add("alice", **wrong, test=False)
    await users.add("alice", **wrong | {"password": PASSWORDS["alice"]})

    page = await users.registries.page(size=0, token="", owner="alice")
    assert [registry.host for registry in page.registries] == [host]
    assert b"layers" in await users.pull("alice", f"{host}/library/hello")


@asynccontextmanager
async def tunnels():
    """A proxy that opens tunnels: its address, and where it was asked to open them to."""
    asked: list[str] = []

    async def pass_on(reader, writer):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
        writer.close()

    async def serve(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        there, back = await asyncio.open_connection(*asked[-1].split(":"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_the_environments_proxy_is_gone_through(host, authority, monkeypatch):
    async def account(_registry):
        return Account(credentials=Credentials("alice", PASSWORDS["alice"]), ca_certificate=authority.pem)

    for no_proxy, tunnelled in (("", True), ("127.0.0.1", False)):
        monkeypatch.setenv("NO_PROXY", no_proxy)
        async with tunnels() as (proxy, asked):
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            client = RegistryClients(mirrors={}, credentials={}, rules=HostRules()).open(account)
            await client.log_in(host)
            await client.close()
        assert asked == ([host] if tunnelled else [])


async def test_another_authority_is_not_trusted(users, host, tmp_path):
    other = Authority(tmp_path / "other")
    wish = {"host": host, "username": "alice", "password": PASSWORDS["alice"], "ca_certificate": other.pem}

    with pytest.raises(RegistryUnreachable, match=r"not from an authority that is trusted here.*--ca FILE"):
        await users.add("alice", **wish)


@pytest.mark.parametrize(
    "credentials", [{"username": "bob", "password": PASSWORDS["bob"]}, {"identity_token": "refresh-me"}]
)
async def test_tokens_are_got_for_credentials(users, token_host, token_server, authority, credentials):
    await users.add("bob", host=token_host, ca_certificate=authority.pem, **credentials)
    assert b"layers" in await users.pull("bob", f"{token_host}/library/hello")

    method, query = token_server.asked[-1]
    assert query["scope"] == ["repository:library/hello:pull"]
    assert method == ("POST" if "identity_token" in credentials else "GET")
    wrong = {name: f"{value}-wrong" for name, value in credentials.items()}
    with pytest.raises(RegistryDenied, match="refuses these credentials"):
        await users.add("bob", host=token_host, ca_certificate=authority.pem, **wrong)


async def test_builds_use_them_and_secrets_are_nowhere_in_the_clear(tmp_path, nats_url, host, authority, bases):
    async with builder_system(tmp_path, nats_url, bases=bases) as system:
        await system.start_worker()
        stub = registry_pb2_grpc.RegistryServiceStub(system.channel)
        alice = system.tokens.metadata("alice")
        wanted = registry_pb2.Registry(
            host=host, username="alice", password=PASSWORDS["alice"], ca_certificate=authority.pem
        )
        added = await stub.CreateRegistry(registry_pb2.CreateRegistryRequest(registry=wanted), metadata=alice)
        found = await stub.GetRegistry(registry_pb2.GetRegistryRequest(host=host), metadata=alice)
        mallory = system.tokens.metadata("mallory")
        others = await stub.ListRegistries(registry_pb2.ListRegistriesRequest(), metadata=mallory)
        image = await system.ended(await system.create(f"{host}/library/hello"), within=200)
        refused = await system.ended(await system.create(f"{host}/library/hello", user="mallory"), user="mallory")
        for registry, code, said in [
            ({"host": "not a host", "username": "a", "password": "b"}, "INVALID_ARGUMENT", "not the host"),
            ({"host": "169.254.169.254", "username": "a", "password": "b"}, "PERMISSION_DENIED", "may not come from"),
            ({"host": "127.0.0.1:1", "username": "a", "password": "b"}, "UNAVAILABLE", "does not answer"),
        ]:
            request = registry_pb2.CreateRegistryRequest(registry=registry_pb2.Registry(**registry))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.CreateRegistry(request, metadata=mallory)
            assert error.value.code().name == code
            assert said in error.value.details()

    assert image.status == "ready", image.reason
    assert "If it speaks TLS" in refused.reason
    assert added.registry == found.registry
    assert (found.registry.username, found.registry.password, found.registry.identity_token) == ("alice", "", "")
    assert not others.registries
    with sqlite3.connect(tmp_path / "state" / "builder.db") as database:
        rows = database.execute("SELECT host, username, length(secret) > 0 FROM builder_registries").fetchall()
    assert rows == [(host, "alice", 1)]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert PASSWORDS["alice"].encode() not in path.read_bytes(), path
