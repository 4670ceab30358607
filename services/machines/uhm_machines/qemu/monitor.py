"""What is asked of a running QEMU: ports, another disk, its state saved and loaded.

A state is the devices' only. The guest's memory is a file (uhm_machines.qemu.argv.MemoryFile) that is shared while the
state is saved, and private to each machine that loads it, so neither copies memory: `x-ignore-shared` leaves it out.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from uhm_machines.errors import InvalidRequest, PortInUse, QmpFailed
from uhm_machines.qemu.argv import NETWORK
from uhm_machines.qemu.blocks import BLANK, swap_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uhm_machines.machine import PortMapping
    from uhm_machines.qemu.blocks import Node
    from uhm_machines.qemu.qmp import QmpSession

__all__ = [
    "close_port",
    "load_state",
    "open_port",
    "open_ports",
    "open_ports_again",
    "pause_guest",
    "put_disk_in",
    "run_guest",
    "save_state",
    "take_disk_out",
]

_WITHOUT_MEMORY: Final = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_STATE_FD: Final = "state"
_POLL_SECONDS: Final = 0.001


async def open_ports(session: QmpSession, ports: Sequence[PortMapping]) -> None:
    """Has QEMU listen on ports of the host. Raises PortInUse where one is taken."""
    for port in ports:
        try:
            await open_port(session, f"{port.transport}:{port.host_address}:{port.host_port}-:{port.guest_port}")
        except InvalidRequest as error:
            raise PortInUse(port.host_address, port.host_port, port.transport) from error


async def open_ports_again(session: QmpSession, ports: Sequence[PortMapping]) -> None:
    """The same where it is not known which of them are open. Raises PortInUse."""
    for port in ports:
        await close_port(session, f"{port.transport}:{port.host_address}:{port.host_port}")
    await open_ports(session, ports)


async def open_port(session: QmpSession, rule: str) -> None:
    """Adds one rule, `tcp:127.0.0.1:8080-:80`. Raises InvalidRequest where QEMU cannot listen there."""
    if said := await _human(session, f"hostfwd_add {NETWORK} {rule}"):
        raise InvalidRequest(f"QEMU cannot forward {rule}: {said}")


async def close_port(session: QmpSession, rule: str) -> None:
    """Removes one, by its first half: `tcp:127.0.0.1:8080`."""
    await _human(session, f"hostfwd_remove {NETWORK} {rule}")


async def _human(session: QmpSession, line: str) -> str:
    """The monitor for people, which alone knows of forwarded ports; answers what it complains of."""
    said = str(await session.execute("human-monitor-command", {"command-line": line})).strip()
    return "" if said.startswith("host forwarding rule") else said


async def put_disk_in(session: QmpSession, nodes: Sequence[Node]) -> None:
    """Puts a disk, the last of these nodes, in the place of the blank one."""
    for node in nodes:
        await session.execute("blockdev-add", node)
    await session.execute("blockdev-reopen", {"options": swap_in(nodes[-1]["node-name"])})


async def take_disk_out(session: QmpSession, nodes: Sequence[Node]) -> None:
    """Puts the blank disk back, and forgets these nodes."""
    await session.execute("blockdev-reopen", {"options": swap_in(BLANK)})
    for node in reversed(nodes):
        await session.execute("blockdev-del", {"node-name": node["node-name"]})


async def run_guest(session: QmpSession) -> None:
    """Lets the guest run on."""
    await session.execute("cont")


async def pause_guest(session: QmpSession) -> None:
    """Stops the guest where it is."""
    await session.execute("stop")


async def save_state(session: QmpSession, path: Path) -> None:
    """Stops the guest for good and writes the state of its devices to a new file. Raises QmpFailed."""
    await session.execute("stop")
    await session.execute("migrate-set-capabilities", _WITHOUT_MEMORY)
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
        await session.lend_fd(_STATE_FD, file)
    await session.execute("migrate", {"uri": f"fd:{_STATE_FD}"})
    await _moved(session)


async def load_state(session: QmpSession, path: Path) -> None:
    """Loads a state into a QEMU that waits for one; the guest does not run yet. Raises QmpFailed."""
    await session.execute("migrate-set-capabilities", _WITHOUT_MEMORY)
    with _opened(path, os.O_RDONLY) as file:
        await session.lend_fd(_STATE_FD, file)
    await session.execute("migrate-incoming", {"uri": f"fd:{_STATE_FD}"})
    await _moved(session)


async def _moved(session: QmpSession) -> None:
    while (status := (await session.execute("query-migrate")).get("status")) != "completed":
        if status in {"failed", "cancelled"}:
            raise QmpFailed(f"QEMU could not save or load the machine's state: {status}.")
        await asyncio.sleep(_POLL_SECONDS)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
