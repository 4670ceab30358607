"""How a machine is started: the place where the kind of start is chosen and carried out.

There is one kind so far, `cold`: the kernel boots. Each kind is a method that answers a `Started`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uhm_machines.disks import create_overlay, export_name, read_image_disk
from uhm_machines.errors import QmpFailed, StartFailed
from uhm_machines.files import listen_unix
from uhm_machines.machine import Accelerator, StartKind
from uhm_machines.ports import port_refused
from uhm_machines.qemu.argv import ExportedDisk, Hardware, Sockets, build_argv
from uhm_machines.qemu.process import DetachedProcess, read_log
from uhm_machines.qemu.qmp import qmp_session
from uhm_machines.timeline import Mark

if TYPE_CHECKING:
    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.disks import ImageDisk
    from uhm_machines.exports import ImageExports
    from uhm_machines.files import MachineFiles
    from uhm_machines.machine import Machine
    from uhm_machines.probe import HostProbe
    from uhm_machines.timeline import Timeline

__all__ = ["Started", "Starts"]

_UP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A machine whose QEMU is up."""

    process: DetachedProcess
    kind: StartKind
    accelerator: Accelerator
    kernel: str
    """Its version and profile."""


class Starts:
    """Starts machines."""

    def __init__(self, *, qemu: str, probe: HostProbe, exports: ImageExports, artifacts: ArtifactStore) -> None:
        self._qemu = qemu
        self._probe = probe
        self._exports = exports
        self._artifacts = artifacts

    async def run(self, machine: Machine, files: MachineFiles, timeline: Timeline) -> Started:
        """Starts a machine in the fastest way that fits. Its ports are claimed already.

        Leaves nothing running where it raises: StartFailed, PortInUse, HostUnsuitable, and NotFound for a disk that is
        gone.
        """
        return await self._cold(machine, files, timeline)

    async def _cold(self, machine: Machine, files: MachineFiles, timeline: Timeline) -> Started:
        disk = await asyncio.to_thread(read_image_disk, self._artifacts, machine.disk_digest)
        await self._exports.acquire(disk.digest, machine_id=machine.id)
        try:
            hardware = Hardware(
                accelerator=await self._probe.accelerator(disk.boot),
                tsc_khz=(await self._probe.host(disk.boot)).tsc_khz,
                memory_mib=machine.memory_mib,
                vcpus=machine.vcpus,
            )
            process = await self._spawn(machine, files, disk=disk, hardware=hardware, timeline=timeline)
        except BaseException:
            await self._exports.release(disk.digest, machine_id=machine.id)
            raise
        return Started(
            process=process,
            kind=StartKind.COLD,
            accelerator=hardware.accelerator,
            kernel=disk.boot.kernel_version,
        )

    async def _spawn(
        self, machine: Machine, files: MachineFiles, *, disk: ImageDisk, hardware: Hardware, timeline: Timeline
    ) -> DetachedProcess:
        await asyncio.to_thread(files.begin_start)
        socket = self._exports.socket_seen_from(files.directory)
        if not files.disk.exists():
            await create_overlay(files.disk, disk, socket=socket)
        with listen_unix(files.qmp_socket) as qmp, listen_unix(files.control_socket) as control:
            argv = build_argv(
                self._qemu,
                boot=disk.boot,
                hardware=hardware,
                disk=ExportedDisk(socket=socket, export=export_name(disk.digest), overlay=files.disk.name),
                sockets=Sockets(qmp=qmp.fileno(), control=control.fileno()),
                ports=machine.ports,
            )
            timeline.mark(Mark.PREPARED)
            process = await DetachedProcess.spawn(files.directory, argv, pass_fds=(qmp.fileno(), control.fileno()))
        try:
            await _wait_up(files, process)
        except BaseException:
            process.kill()
            process.close()
            raise
        timeline.mark(Mark.SPAWNED)
        return process


async def _wait_up(files: MachineFiles, process: DetachedProcess) -> None:
    """Waits until QEMU answers, which it does once it has all its files, sockets and ports."""
    try:
        async with qmp_session(files.qmp_socket, within=_UP_SECONDS) as session:
            await session.execute("query-status")
    except QmpFailed as error:
        process.kill()
        status = await process.ended()
        said = read_log(files.directory)
        raise port_refused(said) or StartFailed(f"QEMU {status}: {said}") from error
