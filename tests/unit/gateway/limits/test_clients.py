"""Who is at the other end, behind proxies or not."""

import ipaddress

import pytest

from uhm_gateway.limits.clients import AGENT_LENGTH, TrustedProxies, address_of_peer, shown_agent

NETWORKS = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.1", "192.0.2.7, 10.2.2.2"], "192.0.2.7"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.0.0.1", ["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, <script>, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", ["[2001:db9::1]:80"], "2001:db9::1"),
        ("10.0.0.1", ["2001:DB9:0::1"], "2001:db9::1"),
        ("10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("2001:db8::9", ["192.0.2.7"], "192.0.2.7"),
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_x_forwarded_for(peer, said, client):
    assert TrustedProxies(networks=NETWORKS).address(peer, said) == client


@pytest.mark.parametrize(
    ("said", "client"),
    [
        (["for=192.0.2.7"], "192.0.2.7"),
        (['For="[2001:db9::1]:4711"'], "2001:db9::1"),
        (["for=198.51.100.1;proto=http, proto=https;for=192.0.2.7;by=10.0.0.1"], "192.0.2.7"),
        (["for=192.0.2.7, for=10.2.2.2"], "192.0.2.7"),
        (["for=_hidden"], "10.0.0.1"),
        (["by=192.0.2.7"], "10.0.0.1"),
        (["xfor=192.0.2.7"], "10.0.0.1"),
    ],
)
def test_forwarded(said, client):
    assert TrustedProxies(networks=NETWORKS, header="forwarded").address("10.0.0.1", said) == client


def test_nobody_is_believed_by_default():
    assert TrustedProxies().address("127.0.0.1", ["192.0.2.7"]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[::ffff:192.0.2.1]:4711", "192.0.2.1"),
        ("unix:/run/socket", ""),
        ("", ""),
    ],
)
def test_peers_of_grpc(peer, address):
    assert address_of_peer(peer) == address


def test_an_agent_is_cut_and_made_printable():
    assert shown_agent("cu\trl/\xe9 8") == "cu?rl/? 8"
    assert len(shown_agent("x" * 999)) == AGENT_LENGTH
