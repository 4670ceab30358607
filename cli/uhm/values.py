"""Values as docker's command line writes them: sizes, published ports, environment."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["exposed_port", "memory_mib", "parse_environment", "parse_port", "seconds", "size_bytes", "vcpus"]

UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
DURATION = re.compile(r"(?:\d+[smhdw])+")
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
PORT = re.compile(
    r"""(?:(?:\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<address>[^:\[\]]*)):)?   # [::1]: or 127.0.0.1:
        (?:(?P<host>\d*):)?
        (?P<guest>\d+)
        (?:/(?P<protocol>tcp|udp))?""",
    re.VERBOSE | re.IGNORECASE,
)
LAST_PORT = 65535


def memory_mib(text: str) -> int:
    """`512m`, `1g`, `1.5g`, or bytes without a unit, as docker has it; in MiB, rounded up."""
    return math.ceil(size_bytes(text) / UNITS["m"])


def size_bytes(text: str) -> int:
    """`512m`, `20g`, `1.5g`, or bytes without a unit."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write 512m or 1g.")
    return math.ceil(float(match[1]) * UNITS[match[2].lower()])


def seconds(text: str) -> int:
    """`90s`, `12h`, `7d`, `1d12h`."""
    if not DURATION.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no length of time; write 12h or 7d.")
    return sum(int(number) * DURATION_UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))


def vcpus(text: str) -> int:
    """`2`; a fraction is rounded up, since a machine has whole processors."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{text!r} is no number of processors.")
    return math.ceil(number)


def parse_port(text: str) -> dict[str, Any]:
    """`[[ADDRESS:][HOST]:]GUEST[/udp]` as a PortMapping; without a host port any free one is taken."""
    # `8080:80` has one colon: what stands before it is a port, not an address.
    padded = f":{text}" if text.count(":") == 1 else text
    match = PORT.fullmatch(padded)
    if match is None:
        raise click.BadParameter(f"{text!r} is not [[ADDRESS:]HOST:]GUEST[/udp], such as 8080:80.")
    host, guest = int(match["host"] or 0), int(match["guest"])
    if not 0 < guest <= LAST_PORT or host > LAST_PORT:
        raise click.BadParameter(f"{text!r} has a port that is not in 1..{LAST_PORT}.")
    return {
        "host_address": match["bracketed"] or match["address"] or "",
        "host_port": host,
        "guest_port": guest,
        "protocol": (match["protocol"] or "tcp").lower(),
    }


def exposed_port(text: str) -> dict[str, Any]:
    """`80/tcp` of an image's configuration, published on any free port."""
    port, _, protocol = text.partition("/")
    return {"host_port": 0, "guest_port": int(port), "protocol": protocol or "tcp"}


def parse_environment(entries: Iterable[str], *, files: Iterable[Path] = (), own: Mapping[str, str]) -> list[str]:
    """NAME=value from files and options, the latter last. A bare NAME takes our own value, or is left out."""
    lines: list[str] = []
    for file in files:
        written = (line.lstrip() for line in file.read_text().splitlines())
        lines += [line for line in written if line and not line.startswith("#")]
    values: dict[str, str] = {}
    for entry in [*lines, *entries]:
        name, equals, value = entry.partition("=")
        if not name or name != name.strip() or " " in name:
            raise click.BadParameter(f"{entry!r} is not NAME=value.")
        if equals:
            values[name] = value
        elif name in own:
            values[name] = own[name]
    return [f"{name}={value}" for name, value in values.items()]
