"""What may be asked of a machine, checked against what this host and its settings allow."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from uhm_machines.errors import InvalidRequest
from uhm_machines.machine import PortMapping, StartKind, Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bounds", "MachineRequest", "WaitFor", "checked", "parse_port", "parse_start", "parse_wait"]

MIN_MEMORY_MIB: Final = 64
DEFAULT_MEMORY_MIB: Final = 256
DEFAULT_HOST_ADDRESS: Final = "127.0.0.1"
MAX_WORDS_BYTES: Final = 512 * 1024
MAX_WORDS: Final = 1000
MAX_PORTS: Final = 64

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?")


class WaitFor(StrEnum):
    """How far a start must have come before it is answered."""

    CREATED = "created"
    RUNNING = "running"
    LISTENING = "listening"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that one machine may have."""

    memory_mib: int
    vcpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRequest:
    """As CreateMachineRequest of the API; empty and 0 mean the default."""

    image: str
    name: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    memory_mib: int = 0
    vcpus: int = 0
    ports: tuple[PortMapping, ...] = ()
    auto_remove: bool = False
    wait: WaitFor = WaitFor.RUNNING
    fastest: StartKind = StartKind.READY
    """No faster kind of start is taken."""


def checked(request: MachineRequest, bounds: Bounds) -> MachineRequest:
    """The request with defaults for memory and processors. Raises InvalidRequest, naming the field and the value."""
    request = replace(request, memory_mib=request.memory_mib or DEFAULT_MEMORY_MIB, vcpus=request.vcpus or 1)
    if not request.image:
        raise InvalidRequest("No image was named.", field="image")
    if request.name and not _NAME.fullmatch(request.name):
        raise InvalidRequest(
            f"{request.name!r} cannot be a name.",
            hint="Use up to 63 letters, digits, `_`, `.` and `-`, beginning with a letter or digit.",
            field="name",
        )
    if request.hostname and not _HOSTNAME.fullmatch(request.hostname):
        raise InvalidRequest(f"{request.hostname!r} cannot be a host name.", field="hostname")
    _check_range("memory_mib", request.memory_mib, MIN_MEMORY_MIB, bounds.memory_mib)
    _check_range("vcpus", request.vcpus, 1, bounds.vcpus)
    if request.working_dir and not request.working_dir.startswith("/"):
        raise InvalidRequest(f"The working directory {request.working_dir!r} is not absolute.", field="working_dir")
    _check_words("command", (*request.command, *request.entrypoint, request.working_dir, request.user))
    _check_words("env", request.env)
    _check_ports(request.ports)
    return request


def parse_wait(text: str) -> WaitFor:
    """What `wait` says. Raises InvalidRequest."""
    try:
        return WaitFor(text or WaitFor.RUNNING)
    except ValueError:
        known = ", ".join(repr(wait.value) for wait in WaitFor)
        raise InvalidRequest(f"wait is {text!r}; it can be {known}.", field="wait") from None


def parse_start(text: str) -> StartKind:
    """What `start` says. Raises InvalidRequest."""
    try:
        return StartKind(text or StartKind.READY)
    except ValueError:
        known = ", ".join(repr(kind.value) for kind in StartKind)
        raise InvalidRequest(f"start is {text!r}; it can be {known}.", field="start") from None


def parse_port(*, host_address: str, host_port: int, guest_port: int, protocol: str) -> PortMapping:
    """One published port with its defaults. Raises InvalidRequest."""
    address = host_address or DEFAULT_HOST_ADDRESS
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise InvalidRequest(f"{address!r} is not an IPv4 address to publish on.", field="ports.host_address") from None
    try:
        transport = Transport(protocol or Transport.TCP)
    except ValueError:
        raise InvalidRequest(f"A port speaks 'tcp' or 'udp', not {protocol!r}.", field="ports.protocol") from None
    _check_range("ports.host_port", host_port, 0, 65535)
    _check_range("ports.guest_port", guest_port, 1, 65535)
    return PortMapping(host_address=address, host_port=host_port, guest_port=guest_port, transport=transport)


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{field} is {value}; it can be from {low} to {high}.", field=field, value=value)


def _check_words(field: str, words: Sequence[str]) -> None:
    """NUL ends a word in the message to the guest, which has a bound on words and on bytes (docs/guest.md)."""
    if any("\0" in word for word in words):
        raise InvalidRequest(f"{field} holds a NUL character.", field=field)
    if len(words) > MAX_WORDS or sum(len(word.encode()) for word in words) > MAX_WORDS_BYTES:
        raise InvalidRequest(f"{field} has more than {MAX_WORDS} words or {MAX_WORDS_BYTES} bytes.", field=field)


def _check_ports(ports: Sequence[PortMapping]) -> None:
    if len(ports) > MAX_PORTS:
        raise InvalidRequest(f"{len(ports)} ports are more than {MAX_PORTS}.", field="ports")
    fixed = [(port.host_address, port.host_port, port.transport) for port in ports if port.host_port]
    for address, number, transport in fixed:
        if fixed.count((address, number, transport)) > 1:
            raise InvalidRequest(f"Port {address}:{number}/{transport} is published twice.", field="ports")
