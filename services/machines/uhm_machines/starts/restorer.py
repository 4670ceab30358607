"""Machines out of snapshots: loaded and paused, then told whose they are.

    template   its disk is exchanged for the machine's; on `run` the guest reads the partition table again, mounts, runs
    ready      its disk is a clone of the service's; on `restore` the guest becomes a machine of its own, then thaws

Neither runs anything of the image before the guest has the host's clock and fresh randomness, and no port of the host
leads to it before it has said so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from typing import TYPE_CHECKING, Final

from uhm_machines.channel import Verb, encode_restore, encode_run
from uhm_machines.errors import GuestFailed
from uhm_machines.machine import StartKind, Workload
from uhm_machines.ports import free_port
from uhm_machines.qemu.argv import MemoryFile
from uhm_machines.qemu.blocks import blank
from uhm_machines.qemu.monitor import (
    close_port,
    load_state,
    open_port,
    open_ports,
    pause_guest,
    put_disk_in,
    run_guest,
    take_disk_out,
)
from uhm_machines.starts.spawner import ended_on_error
from uhm_machines.starts.wish import HOSTNAME_DIGITS

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_machines.disks import ImageDisk
    from uhm_machines.files import MachineFiles
    from uhm_machines.machine import Machine
    from uhm_machines.qemu.argv import BootFiles
    from uhm_machines.qemu.blocks import Node
    from uhm_machines.shape import Shape
    from uhm_machines.snapshots.store import Snapshot
    from uhm_machines.starts.spawner import Running, Spawner

__all__ = ["Restorer"]

_MOUNT_SECONDS: Final = 20.0
_RESTORE_SECONDS: Final = 20.0
_REQUEST_SECONDS: Final = 5.0
_EXCHANGED: Final = "overlay"
_OWN_COMMAND: Final = Workload(
    argv=("/proc/self/exe", "rehearsal"),
    env=(),
    working_dir="",
    user="",
    hostname="",
    stop_signal=signal.SIGTERM,
    watched_ports=(1,),
)
"""Init itself, which writes a line and ends (docs/guest.md); on the port listens nobody."""


class Restorer:
    """Loads snapshots, and hands what was loaded to a machine."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    async def load(
        self, files: MachineFiles, snapshot: Snapshot, *, shape: Shape, boot: BootFiles, disk: ImageDisk | None
    ) -> Running:
        """A paused machine in a directory without a disk, or, for a template, with any.

        `disk` is the image's, of a `ready` snapshot; it is exported already. Raises StartFailed, QmpFailed, OSError.
        """
        await asyncio.to_thread(self._make_files, files, snapshot, disk)
        running = await self._spawner.spawn(
            files,
            boot=boot,
            hardware=shape.hardware,
            blocks=blank(shape.disk_size) if disk is None else self._spawner.disk_nodes(files, disk),
            memory=MemoryFile(path=snapshot.memory.absolute(), shared=False),
            incoming=True,
        )
        async with ended_on_error(running):
            await load_state(running.session, snapshot.state)
        return running

    def _make_files(self, files: MachineFiles, snapshot: Snapshot, disk: ImageDisk | None) -> None:
        files.make()
        files.begin_start()
        if disk is not None:
            _link(snapshot.disk, files.below)
            self._spawner.make_disk(files, disk)

    async def rehearse(self, running: Running, kind: StartKind, disk: ImageDisk, *, machine_id: str) -> None:
        """Has a paused guest go through what it will do when it is handed over, and pauses it where it was.

        QEMU translates a guest's code when it first runs, and keeps the translation: what a start then runs again takes
        a fraction of the time. Nothing of an image runs. Raises GuestFailed, QmpFailed, OSError.
        """
        if kind is StartKind.TEMPLATE:
            await self._rehearse_run(running, disk, machine_id)
        else:
            await _rehearse_restore(running, machine_id)

    async def _rehearse_run(self, running: Running, disk: ImageDisk, machine_id: str) -> None:
        """Over an image's disk, with a command of init's own, and without a trace of either."""
        await self._put_disk_in(running, disk)
        await run_guest(running.session)
        await running.guest.send(Verb.REHEARSE, encode_run(_OWN_COMMAND, machine_id=machine_id, reseed=True))
        await running.guest.expect("rehearsed", within=_MOUNT_SECONDS)
        await pause_guest(running.session)
        await take_disk_out(running.session, self._disk_nodes(running, disk))
        await asyncio.to_thread(running.files.discard_disk)

    async def hand_over(self, running: Running, machine: Machine, *, kind: StartKind, disk: ImageDisk) -> None:
        """Lets a paused machine run as this one, up to its ports being open. The image's disk is exported already.

        Raises GuestFailed, QmpFailed, OSError where the snapshot turns out to be of no use, PortInUse.
        """
        if kind is StartKind.TEMPLATE:
            await self._run(running, machine, disk)
        else:
            await self._restore(running, machine)
        await open_ports(running.session, machine.ports)

    async def _run(self, running: Running, machine: Machine, disk: ImageDisk) -> None:
        await self._put_disk_in(running, disk)
        await run_guest(running.session)
        await running.guest.send(Verb.RUN, encode_run(machine.workload, machine_id=machine.id, reseed=True))
        await running.guest.expect("mounted", within=_MOUNT_SECONDS)

    async def _put_disk_in(self, running: Running, disk: ImageDisk) -> None:
        await asyncio.to_thread(self._spawner.make_disk, running.files, disk)
        await put_disk_in(running.session, self._disk_nodes(running, disk))

    def _disk_nodes(self, running: Running, disk: ImageDisk) -> list[Node]:
        return self._spawner.disk_nodes(running.files, disk, name=_EXCHANGED)

    async def _restore(self, running: Running, machine: Machine) -> None:
        await run_guest(running.session)
        payload = encode_restore(hostname=machine.workload.hostname, machine_id=machine.id)
        await running.guest.send(Verb.RESTORE, payload)
        restored = await running.guest.expect("restored", within=_RESTORE_SECONDS)
        if restored.argument != "0":
            raise GuestFailed(f"the image's after-restore hook ended with {restored.argument}")


async def _rehearse_restore(running: Running, machine_id: str) -> None:
    """With the service frozen, and a request that init answers in its place."""
    await run_guest(running.session)
    payload = encode_restore(hostname=machine_id[:HOSTNAME_DIGITS], machine_id=machine_id)
    await running.guest.send(Verb.REHEARSE, payload)
    guest_port = (await running.guest.expect("rehearsing", within=_RESTORE_SECONDS)).argument
    with free_port() as port:
        await open_port(running.session, f"tcp:127.0.0.1:{port}-:{guest_port}")
        await _request(port)
        await close_port(running.session, f"tcp:127.0.0.1:{port}")
    await running.guest.expect("rehearsed", within=_RESTORE_SECONDS)
    await pause_guest(running.session)


async def _request(port: int) -> None:
    """Asks for a page and reads it to its end."""
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        raise GuestFailed("it did not answer a request") from None


def _link(source: Path, target: Path) -> None:
    """A second name for a file, which outlives the first; a copy where the file systems differ."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
