"""Users' registries in the database; what talks to real ones is in integration/test_private_registries."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update

from tests.unit.builder import fake_registry as fake
from uhm_builder import registries as registries_module
from uhm_builder.errors import (
    InvalidRegistry,
    NoSuchRegistry,
    NotInRegistry,
    RegistryDenied,
    TooManyRegistries,
)
from uhm_builder.hosts import HostRules
from uhm_builder.models import RegistryRow
from uhm_builder.registries import Registries, RegistryWish
from uhm_builder.sources.challenge import Credentials
from uhm_builder.sources.clients import RegistryClients
from uhm_builder.sources.reference import parse_reference
from uhm_common.errors import InternalError
from uhm_common.paging import InvalidPageToken

KEY = {"username": "me", "password": "secret"}


@pytest.fixture
def registries(database, vault, page_tokens):
    return Registries(database=database, vault=vault, page_tokens=page_tokens)


@pytest.fixture
def clients():
    return RegistryClients(mirrors={}, credentials={}, rules=HostRules())


@pytest.fixture
def add(registries):
    async def add(host: str, *, owner="alice", **wish):
        return await registries.add(RegistryWish(host=host, **wish), owner=owner, clients=None)

    return add


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("reg.example:5000", "reg.example:5000"),
        ("Reg.Example", "reg.example"),
        ("https://reg.example/", "reg.example"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("localhost", "localhost"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
async def test_hosts_are_as_references_name_them(add, registries, given, host):
    assert (await add(given, **KEY)).host == host
    assert (await registries.account(host, owner="alice")).credentials == Credentials("me", "secret")


@pytest.mark.parametrize(
    "host", ["", "nginx", "a b", "reg.example/path", "reg.example/v3", "-x.example", "reg.example:"]
)
async def test_what_is_no_host_is_refused(add, host):
    with pytest.raises(InvalidRegistry):
        await add(host, **KEY)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "Neither credentials nor certificates"),
        ({"username": "me"}, "go together"),
        ({"password": "x"}, "go together"),
        ({"username": "me", "password": "x", "identity_token": "y"}, "Both"),
        ({"username": "a:b", "password": "x"}, "no colon"),
        ({"username": "me", "password": "secret\n"}, "the end of its line"),
        ({"username": "me", "password": "x" * 20_000}, "more than"),
        ({"ca_certificate": "nonsense"}, "cannot be read"),
        ({"ca_certificate": "-----BEGIN PRIVATE KEY-----"}, "private key"),
        ({"ca_certificate": "x" * 300_000}, "more than"),
    ],
)
async def test_what_cannot_be_right_is_refused(add, wish, said):
    with pytest.raises(InvalidRegistry, match=said) as error:
        await add("reg.example", **wish)

    assert "secret" not in str(error.value)


async def test_what_others_have_does_not_exist(add, registries):
    await add("reg.example", **KEY)

    assert await registries.account("reg.example", owner="bob") is None
    assert (await registries.page(size=0, token="", owner="bob")).registries == []
    for missing in (registries.get, registries.delete):
        with pytest.raises(NoSuchRegistry):
            await missing("reg.example", owner="bob")


async def test_pages(add, registries):
    for number in range(5):
        await add(f"reg{number}.example", **KEY)

    first = await registries.page(size=3, token="", owner="alice")
    rest = await registries.page(size=3, token=first.next_token, owner="alice")

    assert [each.host for each in first.registries] == ["reg4.example", "reg3.example", "reg2.example"]
    assert [each.host for each in rest.registries] == ["reg1.example", "reg0.example"]
    assert rest.next_token == ""
    with pytest.raises(InvalidPageToken):
        await registries.page(size=3, token="x", owner="alice")


async def test_a_user_has_a_bounded_number(add, registries, monkeypatch):
    monkeypatch.setattr(registries_module, "PER_OWNER_MAX", 2)
    await add("a.example", **KEY)
    await add("b.example", **KEY)
    await add("b.example", **KEY)
    await add("a.example", owner="bob", **KEY)

    with pytest.raises(TooManyRegistries, match="2 registries"):
        await add("c.example", **KEY)


async def test_one_that_is_added_many_times_at_once_is_there_once(add, registries):
    await asyncio.gather(*(add("reg.example", username="me", password=f"{number}") for number in range(10)))

    assert len((await registries.page(size=0, token="", owner="alice")).registries) == 1


async def test_a_secret_opens_for_its_owner_and_host_only(add, registries, database):
    await add("reg.example", **KEY)
    await add("reg.example", owner="bob", username="bob", password="other")
    async with database.write() as session:
        stolen = (await session.scalars(select(RegistryRow.secret).where(RegistryRow.owner == "alice"))).one()
        assert b"secret" not in stolen
        await session.execute(update(RegistryRow).where(RegistryRow.owner == "bob").values(secret=stolen))

    with pytest.raises(InternalError, match="cannot be decrypted"):
        await registries.account("reg.example", owner="bob")


@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_credentials_are_shown_before_they_are_kept(registries, clients, kind):
    async with fake.FakeRegistry() as registry:
        registry.content["/v2/"] = ("application/json", b"{}")
        registry.basic, registry.token = fake.basic("me", "secret"), "t0ken"
        registry.challenge = f'Bearer realm="{registry.url}/token"' if kind == "bearer" else 'Basic realm="test"'

        await registries.add(RegistryWish(host=registry.host, **KEY), owner="alice", clients=clients)
        with pytest.raises(RegistryDenied):
            await registries.add(
                RegistryWish(host=registry.host, username="me", password="wrong"), owner="bob", clients=clients
            )

        assert await registries.account(registry.host, owner="alice")
        assert await registries.account(registry.host, owner="bob") is None


async def test_a_server_that_is_no_registry_is_refused(registries, clients):
    async with fake.FakeRegistry() as registry:
        with pytest.raises(NotInRegistry, match="There is no registry at"):
            await registries.add(RegistryWish(host=registry.host, **KEY), owner="alice", clients=clients)


async def test_the_operators_credentials_are_for_those_without_their_own(registries, add):
    async with fake.FakeRegistry() as registry:
        registry.put_image("app", "latest", [])
        registry.basic, registry.challenge = fake.basic("operator", "s3cret"), 'Basic realm="test"'
        operators = {registry.host: Credentials("operator", "s3cret")}
        clients = RegistryClients(mirrors={}, credentials=operators, rules=HostRules())
        await add(registry.host, **KEY)

        async def pull(owner: str) -> None:
            async def account(host: str):
                return await registries.account(host, owner=owner)

            client = clients.open(account)
            try:
                await client.manifest(parse_reference(f"{registry.host}/app"))
            finally:
                await client.close()

        await pull("bob")
        with pytest.raises(RegistryDenied):
            await pull("alice")

        shown = {request.headers.get("authorization") for request in registry.requests}
        assert shown == {None, fake.basic("operator", "s3cret"), fake.basic("me", "secret")}
