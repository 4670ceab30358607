"""What is to be started, and what of it keeps the image's running service from being used for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from uhm_machines.errors import InvalidRequest
from uhm_machines.machine import StartKind, Transport
from uhm_machines.requests import MachineRequest
from uhm_machines.snapshots.store import ready_key
from uhm_machines.workload import workload_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uhm_machines.images import Image
    from uhm_machines.machine import PortMapping, Workload
    from uhm_machines.shape import Shape

__all__ = ["HOSTNAME_DIGITS", "Service", "Wish", "named", "service_of", "why_not_ready"]

HOSTNAME_DIGITS: Final = 12
_SETTINGS: Final = {
    "argv": "the command",
    "env": "the environment",
    "working_dir": "the working directory",
    "user": "the user",
    "hostname": "the host name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What an image runs by itself: what a `ready` snapshot is made of."""

    image: Image
    workload: Workload
    """Its host name is the image's, if that has one; each clone gets its own."""

    @property
    def can_tell(self) -> bool:
        """Whether there is a way to know that it serves."""
        return self.image.config.healthcheck is not None or bool(self.workload.watched_ports)

    def key(self, shape: Shape) -> str:
        """Names its snapshot in a shape."""
        return ready_key(shape, image_id=self.image.id, disk_digest=self.image.disk_digest, workload=self.workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be started."""

    disk_digest: str
    workload: Workload
    ports: Sequence[PortMapping]
    memory_mib: int
    vcpus: int
    fastest: StartKind = StartKind.READY
    service: Service | None = None
    """What the image runs by itself; None where that is nothing."""
    has_disk: bool = False
    """Whether the machine was started before, and goes on with what it has written."""


def service_of(image: Image) -> Service | None:
    """What an image runs by itself; None where that is nothing."""
    try:
        return Service(image=image, workload=workload_of(MachineRequest(image=image.id), image.config))
    except InvalidRequest:
        return None


def why_not_ready(wish: Wish) -> str:
    """What a running service could not have of this wish; empty where it has all of it.

    The wish's workload has a host name only where one was asked for, or the image has one.
    """
    service = wish.service
    if wish.fastest is not StartKind.READY:
        return "a slower kind was asked for"
    if wish.has_disk:
        return "the machine has a disk of its own"
    if service is None or not service.can_tell:
        return "the image exposes no TCP port and has no health check, so nothing tells when its service is ready"
    return _difference(wish, service)


def _difference(wish: Wish, service: Service) -> str:
    differing = [
        name for field, name in _SETTINGS.items() if getattr(wish.workload, field) != getattr(service.workload, field)
    ]
    if differing:
        return f"{' and '.join(differing)} {'was' if len(differing) == 1 else 'were'} asked for"
    published = {port.guest_port for port in wish.ports if port.transport is Transport.TCP}
    if unknown := sorted(published - set(service.workload.watched_ports)):
        return f"the image does not expose port {unknown[0]}, so nothing tells whether its service listens there"
    return ""


def named(workload: Workload, machine_id: str) -> Workload:
    """The workload with a host name of its own where it has none, as docker names containers."""
    return replace(workload, hostname=workload.hostname or machine_id[:HOSTNAME_DIGITS])
