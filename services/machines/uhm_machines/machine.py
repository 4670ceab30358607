"""The values that this service is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from uhm_machines.states import Status

__all__ = ["ID_PATTERN", "Accelerator", "Machine", "Phase", "PortMapping", "StartKind", "Transport", "Workload"]

ID_PATTERN: Final = re.compile(r"[0-9a-f]{32}")


class Transport(StrEnum):
    """What a published port speaks."""

    TCP = "tcp"
    UDP = "udp"


class StartKind(StrEnum):
    """How a machine was started."""

    COLD = "cold"
    """The kernel booted."""
    TEMPLATE = "template"
    """A snapshot of a machine that waits for its image was restored."""
    READY = "ready"
    """A snapshot of the image's running service was restored."""


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """A port of the host that leads to one of the guest."""

    host_address: str
    """IPv4."""
    host_port: int
    """0 in a request: any free one."""
    guest_port: int
    transport: Transport = Transport.TCP


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the guest is told to run."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    """NAME=value."""
    working_dir: str
    user: str
    hostname: str
    stop_signal: int
    watched_ports: tuple[int, ...]
    """TCP ports of the guest; the machine is listening when all of them are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of the last start, in milliseconds since it was asked for."""

    name: str
    start_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All that is recorded of a machine. Times are nanoseconds since 1970."""

    id: str
    name: str
    owner: str
    image_id: str
    image_reference: str
    disk_digest: str
    workload: Workload
    memory_mib: int
    vcpus: int
    ports: tuple[PortMapping, ...]
    auto_remove: bool
    created_ns: int
    starts: int = 0
    """How often it was started."""
    status: Status = Status.CREATED
    reason: str = ""
    exit_code: int | None = None
    started_ns: int | None = None
    """When the workload was executed."""
    ended_ns: int | None = None
    start_kind: StartKind = StartKind.COLD
    start_reason: str = ""
    """Why no faster kind of start was taken."""
    accelerator: Accelerator | None = None
    kernel: str = ""
    """Version and profile of what it booted last."""
    phases: tuple[Phase, ...] = ()
    pid: int | None = None
    """Of QEMU, while it runs."""
    console_tail: str = ""
    listening: bool = False
