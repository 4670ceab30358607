"""Which hosts images may come from."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from tests.unit.builder import fake_registry as fake
from uhm_builder.errors import HostDenied
from uhm_builder.hosts import HostRules
from uhm_builder.settings import BuilderSettings
from uhm_builder.sources.reference import parse_reference
from uhm_builder.sources.registry import RegistryClient


def permitted(rules: HostRules, host: str, *addresses: str) -> list[str]:
    return [str(address) for address in rules.permitted(host, [ipaddress.ip_address(each) for each in addresses])]


@pytest.mark.parametrize("address", ["93.184.216.34", "10.1.2.3", "127.0.0.1", "::1", "2606:2800::1"])
def test_by_default_all_is_allowed_but_where_clouds_hand_out_credentials(address):
    assert permitted(HostRules(), "registry.example", address) == [address]


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_by_default_metadata_services_are_denied(address):
    with pytest.raises(HostDenied, match=r"may not come from registry\.example.*UHM_REGISTRY_HOSTS_DENIED"):
        permitted(HostRules(), "registry.example", address)


def test_of_several_addresses_those_that_are_denied_are_left_out():
    assert permitted(HostRules(), "registry.example", "169.254.1.1", "192.0.2.1") == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("host", "address", "allowed"),
    [
        ("ghcr.io", "192.0.2.1", True),
        ("GHCR.io", "192.0.2.1", True),
        ("pkg.ghcr.io", "192.0.2.1", False),
        ("a.example.com", "192.0.2.1", True),
        ("a.b.example.com", "192.0.2.1", True),
        ("example.com", "192.0.2.1", False),
        ("anything", "10.9.9.9", True),
        ("a.example.com", "169.254.169.254", False),
        ("bad.example.com", "192.0.2.1", False),
    ],
)
def test_with_a_list_all_else_is_denied(host, address, allowed):
    rules = HostRules.of(
        denied=("169.254.0.0/16", "bad.example.com"), allowed=("ghcr.io", "*.example.com", "10.0.0.0/8")
    )
    if allowed:
        assert permitted(rules, host, address) == [address]
    else:
        with pytest.raises(HostDenied):
            permitted(rules, host, address)


@pytest.mark.parametrize("rule", ["10.0.0.0/33", "a b", "http://x", "*", "1.2.3", "-x"])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(ValueError, match="is not a host"):
        HostRules.of(denied=(rule,))


def test_settings_have_the_rules(monkeypatch):
    monkeypatch.setenv("UHM_REGISTRY_HOSTS_ALLOWED", "ghcr.io, 10.0.0.0/8")
    monkeypatch.setenv("UHM_REGISTRY_MIRRORS", "docker.io=https://mirror.example:5000")

    rules = BuilderSettings().host_rules

    assert permitted(rules, "ghcr.io", "192.0.2.1")
    assert permitted(rules, "mirror.example", "192.0.2.1")
    with pytest.raises(HostDenied):
        rules.permitted("docker.io", [ipaddress.ip_address("192.0.2.1")])


@pytest.fixture
async def manifest():
    """Asks for a reference by rules."""
    clients = []

    async def ask(reference: str, rules: HostRules) -> bytes:
        client = RegistryClient(mirrors={}, credentials={}, rules=rules)
        clients.append(client)
        return (await client.manifest(parse_reference(reference)))[1]

    yield ask
    for client in clients:
        await client.close()


async def test_a_denied_address_is_not_spoken_to(manifest):
    async with fake.FakeRegistry() as registry:
        with pytest.raises(HostDenied):
            await manifest(f"{registry.host}/app", HostRules.of(denied=("127.0.0.0/8",)))

        assert registry.requests == []


async def test_a_name_counts_by_what_it_resolves_to(manifest, monkeypatch):
    loop = asyncio.get_running_loop()
    asked = []

    async def rebound(host, port, **_):
        """A name that was harmless the first time."""
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    with pytest.raises(HostDenied):
        await manifest("registry.test:1/app", HostRules())  # nobody listens at first, so it is tried again

    assert asked == ["registry.test", "registry.test"]


async def test_a_redirect_leads_nowhere_else(manifest):
    async with fake.FakeRegistry() as registry:
        registry.redirect["/v2/app/manifests/latest"] = "http://169.254.169.254/latest/meta-data"

        with pytest.raises(HostDenied, match=r"169\.254\.169\.254"):
            await manifest(f"{registry.host}/app", HostRules())


async def test_a_challenge_leads_nowhere_else(manifest):
    async with fake.FakeRegistry() as registry:
        registry.token, registry.challenge = "t", 'Bearer realm="http://169.254.169.254/token"'

        with pytest.raises(HostDenied, match=r"169\.254\.169\.254"):
            await manifest(f"{registry.host}/app", HostRules())
