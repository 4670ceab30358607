"""What docs/portable.md promises of the network, in name spaces whose interfaces are pairs of virtual Ethernet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.cloud_bench import PROGRAM, SECONDS, Answer, needs_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.cloud_bench import Cloud

pytestmark = [
    pytest.mark.integration,
    needs_root,
    pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare and ip"),
]
pytest_plugins = ("tests.integration.cloud_bench",)

# A name space of processes as well: what runs in it ends with its first.
SCRIPT = """
set -e
cd "$1"
for number in 0 1; do
    ip link add eth$number address 52:54:00:00:00:0$number type veth peer name far$number
    ip link set far$number up
done
ip link add ignored type veth peer name unused
if [ -e udhcpd.conf ]; then
    ip address add 10.5.0.1/24 dev far0
    busybox udhcpd -f -a1 udhcpd.conf >/dev/null 2>&1 &
fi
"$2" --source source --interface eth0 --interface eth1 root
ip -json address > addresses
ip -json route > routes
ip -6 -json route >> routes
"""
UDHCPD = """
start 10.5.0.20
end 10.5.0.20
interface far0
lease_file leases
pidfile pid
option subnet 255.255.255.0
option router 10.5.0.1
option dns 10.5.0.1 10.5.0.2
option hostname named.example.org
option mtu 1400
option staticroutes 0.0.0.0/0 10.5.0.9,10.8.0.0/16 10.5.0.8
"""


@dataclass(frozen=True, kw_only=True)
class Network:
    answer: Answer
    links: dict[str, Any]
    routes: set[str]

    def addresses(self, name: str) -> set[str]:
        """All but those that the kernel makes up."""
        found = self.links[name]["addr_info"]
        return {f"{item['local']}/{item['prefixlen']}" for item in found if item["scope"] != "link"}


def set_up(cloud: Cloud, configuration: str | None = None, *, name: str = "network-config") -> Network:
    directory = cloud.root.parent
    if configuration is not None:
        cloud.give(name, configuration)
    fork = ("unshare", "--net", "--pid", "--fork", "--kill-child")
    answer = run(*fork, "sh", "-c", SCRIPT, "sh", directory, PROGRAM)
    links = json.loads((directory / "addresses").read_text())
    routes = [json.loads(line) for line in (directory / "routes").read_text().splitlines()]
    return Network(
        answer=answer,
        links={link["ifname"]: link for link in links},
        routes={
            f"{route['dst']} {route['gateway']} {route['dev']} {route.get('metric', '')}".rstrip()
            for routes_of_a_family in routes
            for route in routes_of_a_family
            if "gateway" in route
        },
    )


def test_version_2(cloud: Cloud) -> None:
    network = set_up(
        cloud,
        """
network:
  version: 2
  ethernets:
    lan:
      match: {macaddress: '52:54:00:00:00:00'}
      set-name: lan0
      mtu: 1400
      addresses: [10.1.2.3/24, "2001:db8::5/64"]
      gateway4: 10.1.2.1
      gateway6: "2001:db8::1"
      routes: [{to: 10.9.0.0/16, via: 172.31.1.1, on-link: true, metric: 50}]
      nameservers: {addresses: [1.1.1.1, "2606:4700::1111"]}
    eth1: {addresses: [{192.168.7.2/24: {label: x}}], routes: [{to: default, via: 192.168.7.1, metric: 9}]}
""",
    )
    assert network.answer.problems == ()
    assert network.answer.pairs == (
        ("hostname", "shop"),
        ("nameserver", "1.1.1.1"),
        ("nameserver", "2606:4700::1111"),
    )
    assert network.addresses("lan0") == {"10.1.2.3/24", "2001:db8::5/64"}
    assert network.links["lan0"]["mtu"] == 1400
    assert network.addresses("eth1") == {"192.168.7.2/24"}
    assert network.addresses("lo") == {"127.0.0.1/8", "::1/128"}
    assert "UP" in network.links["lo"]["flags"]
    assert "UP" not in network.links["ignored"]["flags"]
    assert network.routes == {
        "default 10.1.2.1 lan0",
        "default 192.168.7.1 eth1 9",
        "10.9.0.0/16 172.31.1.1 lan0 50",
        "default 2001:db8::1 lan0 1024",
    }


def test_version_1(cloud: Cloud) -> None:
    network = set_up(
        cloud,
        """
version: 1
config:
  - type: physical
    name: eth1
    subnets:
      - {type: static, address: 192.168.7.2, netmask: 255.255.255.0, gateway: 192.168.7.1, dns_nameservers: [9.9.9.9]}
      - type: static6
        address: fd00::2/64
        routes: [{network: 'fd01::', netmask: 'ffff:ffff::', gateway: 'fd00::1'}]
  - {type: nameserver, address: [8.8.8.8], search: [example.org]}
  - {type: bond, name: bond0}
""",
    )
    assert network.answer.problems == ("cloud-init: network: an entry of type bond is not supported and ignored",)
    assert network.answer.pairs[1:] == (("nameserver", "9.9.9.9"), ("nameserver", "8.8.8.8"))
    assert network.addresses("eth1") == {"192.168.7.2/24", "fd00::2/64"}
    assert network.addresses("eth0") == set()
    assert network.routes == {"default 192.168.7.1 eth1", "fd01::/32 fd00::1 eth1 1024"}


def test_openstack(cloud: Cloud) -> None:
    cloud.give("openstack/latest/meta_data.json", '{"uuid": "u", "hostname": "drive"}')
    network = set_up(
        cloud,
        json.dumps(
            {
                "links": [{"id": "tap0", "type": "ovs", "ethernet_mac_address": "52:54:00:00:00:01", "mtu": 1450}],
                "networks": [
                    {
                        "type": "ipv4",
                        "link": "tap0",
                        "ip_address": "10.3.0.7",
                        "netmask": "255.255.240.0",
                        "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.3.0.1"}],
                        "services": [{"type": "dns", "address": "10.3.0.2"}],
                    }
                ],
                "services": [{"type": "dns", "address": "10.3.0.3"}],
            },
            separators=(",", ":"),
        ),
        name="openstack/latest/network_data.json",
    )
    assert network.answer.problems == ()
    assert network.answer.pairs == (("hostname", "drive"), ("nameserver", "10.3.0.2"), ("nameserver", "10.3.0.3"))
    assert network.addresses("eth1") == {"10.3.0.7/20"}
    assert network.links["eth1"]["mtu"] == 1450
    assert network.routes == {"default 10.3.0.1 eth1"}


def test_dhcp_on_all_where_nothing_is_configured(cloud: Cloud) -> None:
    """One link has no server: the first lease is enough."""
    (cloud.root.parent / "udhcpd.conf").write_text(UDHCPD)
    (cloud.root.parent / "leases").touch()
    cloud.give("meta-data", "instance-id: i\n")
    network = set_up(cloud)
    assert network.answer.problems == ("cloud-init: network: eth0 has 10.5.0.20/24 by DHCP",)
    assert network.answer.pairs == (("hostname", "named"), ("nameserver", "10.5.0.1"), ("nameserver", "10.5.0.2"))
    assert network.addresses("eth0") == {"10.5.0.20/24"}
    assert network.links["eth0"]["mtu"] == 1400
    assert {route.rsplit(" ", 1)[0] for route in network.routes} == {
        "default 10.5.0.9 eth0",
        "10.8.0.0/16 10.5.0.8 eth0",
    }


@pytest.mark.parametrize(
    ("configuration", "problems"),
    [
        ("version: 3", ["its version is neither 1 nor 2"]),
        ("[", ["network configuration is left out: line 2"]),
        (
            "{version: 2, ethernets: {eth1: {addresses: [1.2.3, 1.2.3.4/33, '-x', '1.2.3.4/2x']}}}",
            ["an address is none"] * 4,
        ),
        ("{version: 2, ethernets: {eth1: {mtu: 5}}}", ["5 is no MTU"]),
        ("{version: 2, ethernets: {eth1: {set-name: '../etc'}}}", ["cannot be called ../etc"]),
        (
            "{version: 2, ethernets: {eth1: {routes: [{to: x, via: 1.1.1.1}, {to: 1.1.1.0/24}]}}}",
            ["a route is none"] * 2,
        ),
        (
            "{version: 2, ethernets: {eth1: {nameservers: {addresses: [dns]}}}}",
            ["a name server is not an address: dns"],
        ),
        ("{version: 2, bonds: {}, ethernets: {eth1: {}}}", ["bonds is not supported"]),
        ("{version: 2, ethernets: {eth1: {set-name: eth0}}}", ["ip: ", "keeps its name"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_and_left_out(cloud: Cloud, configuration: str, problems: list[str]) -> None:
    (cloud.root.parent / "udhcpd.conf").write_text(UDHCPD)  # without any link that is right, DHCP is all that is left
    (cloud.root.parent / "leases").touch()
    said = [line for line in set_up(cloud, configuration).answer.problems if "by DHCP" not in line]
    assert len(said) == len(problems)
    assert all(problem in line for problem, line in zip(problems, said, strict=True)), said


@pytest.mark.parametrize("count", [1, 5000])
def test_links_that_are_not_there(cloud: Cloud, count: int) -> None:
    (cloud.root.parent / "udhcpd.conf").write_text(UDHCPD)
    (cloud.root.parent / "leases").touch()
    links = ", ".join(f"none{number}: {{}}" for number in range(count))
    network = set_up(cloud, f"{{version: 2, ethernets: {{{links}}}}}")
    assert network.answer.problems[0] == "cloud-init: network: no interface fits none0"
    assert network.addresses("eth0") == {"10.5.0.20/24"}


@contextmanager
def lease(event: str, root: Path, *, dns: str, **environment: str) -> Iterator[None]:
    """What udhcpc does at an event that nobody waits for, in a root like init's; at the end of the block it is over."""
    said = {"interface": "lo", "ip": "10.5.0.20", "subnet": "255.255.255.0", "dns": dns, **environment}
    command = ["unshare", "--net", "chroot", str(root), "/portable/cloud", event]
    with subprocess.Popen(command, env={**os.environ, **said}) as process:
        yield
        assert process.wait(SECONDS) == 0


@pytest.fixture
def resolv_conf(cloud: Cloud) -> Path:
    """Where init's would be."""
    (cloud.root / "portable").mkdir()
    for name in ("cloud", "busybox"):
        shutil.copy(PROGRAM.with_name(name), cloud.root / "portable")
    (cloud.root / "generated").mkdir()
    return cloud.root / "generated/resolv.conf"


def test_a_lease_that_comes_while_init_takes_the_answer_is_heeded(cloud: Cloud, resolv_conf: Path) -> None:
    with lease("bound", cloud.root, dns="10.5.0.1 10.5.0.2"):
        time.sleep(0.3)
        resolv_conf.write_text("nameserver 10.0.2.3\n")
    assert resolv_conf.read_text() == "nameserver 10.5.0.1\nnameserver 10.5.0.2\n"


@pytest.mark.parametrize(
    ("dns", "named", "expected"),
    [
        ("10.5.0.3", {}, "nameserver 10.5.0.3\n"),
        ("10.5.0.1", {}, "nameserver 10.5.0.1\nnameserver 10.6.0.1\n"),
        ("10.5.0.3", {"CLOUD_NAMED": "1"}, "nameserver 10.5.0.1\nnameserver 10.6.0.1\n"),
        ("", {}, "nameserver 10.5.0.1\nnameserver 10.6.0.1\n"),
    ],
    ids=["others", "known", "configured", "none"],
)
def test_a_lease_is_renewed_with_its_name_servers(
    cloud: Cloud, resolv_conf: Path, dns: str, named: dict[str, str], expected: str
) -> None:
    resolv_conf.write_text("nameserver 10.5.0.1\nnameserver 10.6.0.1\n")
    with lease("renew", cloud.root, dns=dns, **named):
        pass
    assert resolv_conf.read_text() == expected
