"""Which hosts this machine may be sent to: a user's reference names a host, and a worker connects to it.

Without rules, whoever may ask for an image could have a worker talk to what only it can reach. Denied by default are
the link-local addresses, where clouds answer with a machine's own credentials, and the other addresses that clouds use
for that. Loopback and private networks are allowed, as docker allows them, because registries live there.

A rule is a name (`ghcr.io`), all names below one (`*.example.com`), an address or a network (`10.0.0.0/8`). What is
denied is denied; where there is a list of what is allowed, all else is denied, too. Names are checked before they are
resolved and addresses after, every time that a connection is made, redirects included: a name that means another
address the second time gains nothing. Through a proxy, which resolves names itself, only names are checked.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from uhm_builder.errors import HostDenied

__all__ = ["DENIED", "HostRules", "IPAddress", "parse_rules"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DENIED = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")
"""Link-local, and the metadata services of AWS and Google over IPv6, Alibaba Cloud and Azure."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_NAME = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """What may be connected to; by default all but `DENIED`."""

    denied_names: tuple[str, ...] = ()
    denied_networks: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in DENIED)
    allowed_names: tuple[str, ...] = ()
    allowed_networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, *, denied: tuple[str, ...] = DENIED, allowed: tuple[str, ...] = ()) -> HostRules:
        """From rules as text. Raises ValueError."""
        denied_names, denied_networks = parse_rules(denied)
        allowed_names, allowed_networks = parse_rules(allowed)
        return cls(
            denied_names=denied_names,
            denied_networks=denied_networks,
            allowed_names=allowed_names,
            allowed_networks=allowed_networks,
        )

    def check_name(self, host: str) -> None:
        """Raises HostDenied for a name, or an address in place of one, that no connection may be made to."""
        address = _literal(host)
        if address is not None:
            self.permitted(host, [address])
        elif _matches(host, self.denied_names) or (
            (self.allowed_names and not self.allowed_networks) and not _matches(host, self.allowed_names)
        ):
            raise _denied(host)

    def permitted(self, host: str, addresses: list[IPAddress]) -> list[IPAddress]:
        """Those of a host's addresses that may be connected to. Raises HostDenied where there is none."""
        anything = not (self.allowed_names or self.allowed_networks) or _matches(host, self.allowed_names)
        found = [
            address
            for address in addresses
            if not _within(address, self.denied_networks) and (anything or _within(address, self.allowed_networks))
        ]
        if not found or _matches(host, self.denied_names):
            raise _denied(host)
        return found


def parse_rules(rules: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    """Names and networks. Raises ValueError for what is neither."""
    names: list[str] = []
    networks: list[Network] = []
    for rule in rules:
        try:
            networks.append(ipaddress.ip_network(rule))
        except ValueError as error:
            if not _NAME.fullmatch(rule.lower()) or rule.replace(".", "").isdecimal():
                message = f"{rule!r} is not a host, *.DOMAIN, an address or a network such as 10.0.0.0/8"
                raise ValueError(message) from error
            names.append(rule.lower())
    return tuple(names), tuple(networks)


def _literal(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _matches(host: str, names: tuple[str, ...]) -> bool:
    name = host.lower().rstrip(".")
    return any(fnmatchcase(name, pattern) for pattern in names)


def _within(address: IPAddress, networks: tuple[Network, ...]) -> bool:
    """Whether an address, or the IPv4 address that is in it, belongs to one of the networks."""
    inner = address
    if isinstance(address, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
        inner = address.ipv4_mapped or translated or address
    return any(address in network or inner in network for network in networks)


def _denied(host: str) -> HostDenied:
    return HostDenied(
        f"Images may not come from {host}.",
        hint="The operator sets UHM_REGISTRY_HOSTS_DENIED and UHM_REGISTRY_HOSTS_ALLOWED.",
    )
