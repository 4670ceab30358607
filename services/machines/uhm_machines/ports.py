"""Ports of the host that lead to machines: which are free, and holding them until QEMU has them.

QEMU's user-mode network binds them itself. For TCP, a socket that is bound but does not listen, with SO_REUSEADDR on
both sides, keeps the port from everyone who asks for any free one, and still lets QEMU bind it.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from uhm_machines.errors import InvalidRequest, PortInUse
from uhm_machines.machine import PortMapping, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PortBook", "free_port"]

_ANY = "0.0.0.0"  # noqa: S104 - compared with, not bound to
_KINDS = {Transport.TCP: socket.SOCK_STREAM, Transport.UDP: socket.SOCK_DGRAM}


class PortBook:
    """The ports of all machines that live."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, tuple[PortMapping, ...]]] = {}

    def note(self, machine_id: str, *, name: str, ports: Sequence[PortMapping]) -> None:
        """Records the ports of a machine that has them already."""
        self._taken[machine_id] = (name, tuple(ports))

    def release(self, machine_id: str) -> None:
        """Gives a machine's ports back."""
        self._taken.pop(machine_id, None)

    @contextmanager
    def claim(self, machine_id: str, *, name: str, ports: Sequence[PortMapping]) -> Iterator[tuple[PortMapping, ...]]:
        """Takes ports for a machine and answers them with numbers in place of 0; holds them while the block runs.

        A block that raises gives them back. Raises PortInUse, InvalidRequest for an address that is not this host's.
        """
        with ExitStack() as held:
            claimed: list[PortMapping] = []
            for port in ports:
                self._check_ours(port)
                sock = held.enter_context(_bound(port))
                claimed.append(replace(port, host_port=sock.getsockname()[1]))
                if port.transport is Transport.UDP:
                    sock.close()
            self.note(machine_id, name=name, ports=claimed)
            try:
                yield tuple(claimed)
            except BaseException:
                self.release(machine_id)
                raise

    def _check_ours(self, wanted: PortMapping) -> None:
        for name, ports in self._taken.values():
            for port in ports:
                same_address = wanted.host_address == port.host_address or _ANY in {
                    wanted.host_address,
                    port.host_address,
                }
                same_port = (wanted.host_port, wanted.transport) == (port.host_port, port.transport)
                if same_address and same_port:
                    raise _in_use(wanted, holder=f"machine {name}")


@contextmanager
def free_port() -> Iterator[int]:
    """A TCP port of loopback that nobody uses, held while the block runs, for QEMU to listen on."""
    loopback = PortMapping(host_address="127.0.0.1", host_port=0, guest_port=1)
    with _bound(loopback) as sock:
        yield sock.getsockname()[1]


def _bound(port: PortMapping) -> socket.socket:
    sock = socket.socket(socket.AF_INET, _KINDS[port.transport])
    try:
        if port.transport is Transport.TCP and port.host_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.host_address, port.host_port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(port) from error
        reason = "is not an address of this host" if error.errno == errno.EADDRNOTAVAIL else f"({error.strerror})"
        raise InvalidRequest(
            f"Cannot publish on {port.host_address}:{port.host_port}: it {reason}.", field="ports"
        ) from error
    return sock


def _in_use(port: PortMapping, *, holder: str = "another program") -> PortInUse:
    return PortInUse(port.host_address, port.host_port, port.transport, holder=holder)
