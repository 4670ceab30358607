"""QEMU in a machine's directory: what all kinds of start, and the making of snapshots, begin with."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uhm_machines.disks import create_overlay, export_name
from uhm_machines.errors import QmpFailed, StartFailed
from uhm_machines.files import listen_unix
from uhm_machines.guest import StartingGuest
from uhm_machines.qemu.argv import Sockets, build_argv
from uhm_machines.qemu.blocks import TOP, disk_over, image
from uhm_machines.qemu.process import DetachedProcess, read_log
from uhm_machines.qemu.qmp import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from uhm_machines.disks import ImageDisk
    from uhm_machines.exports import ImageExports
    from uhm_machines.files import MachineFiles
    from uhm_machines.qemu.argv import BootFiles, Hardware, MemoryFile
    from uhm_machines.qemu.blocks import Node
    from uhm_machines.qemu.qmp import QmpSession

__all__ = ["Running", "Spawner", "ended_on_error"]

_UP_SECONDS: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Running:
    """A QEMU that is up: its process, its monitor, and the way to its guest."""

    files: MachineFiles
    process: DetachedProcess
    session: QmpSession
    guest: StartingGuest

    async def end(self) -> None:
        """Ends it at once and waits until it has."""
        self.guest.channel.close()
        self.process.kill()
        await self.process.ended()
        await self.session.close()
        self.process.close()


class Spawner:
    """Starts QEMU."""

    def __init__(self, *, qemu: str, exports: ImageExports) -> None:
        self._qemu = qemu
        self._exports = exports

    def make_disk(self, files: MachineFiles, disk: ImageDisk) -> None:
        """Makes a machine's own disk over the image's, unless it has one. Blocks."""
        if not files.disk.exists():
            create_overlay(files, disk, socket=self._exports.socket_seen_from(files.directory))

    def disk_nodes(self, files: MachineFiles, disk: ImageDisk, *, name: str = TOP) -> list[Node]:
        """The nodes of a machine's disk, the last of which has this name."""
        return disk_over(
            image(self._exports.socket_seen_from(files.directory), export_name(disk.digest)),
            overlay=files.disk.name,
            below=files.below.name if files.below.exists() else None,
            name=name,
        )

    async def spawn(
        self,
        files: MachineFiles,
        *,
        boot: BootFiles,
        hardware: Hardware,
        blocks: Sequence[Node],
        memory: MemoryFile | None = None,
        template: bool = False,
        incoming: bool = False,
    ) -> Running:
        """Starts QEMU (see build_argv) and waits until it has all its files. Raises StartFailed and leaves nothing."""
        with listen_unix(files.qmp_socket) as qmp, listen_unix(files.control_socket) as control:
            argv = build_argv(
                self._qemu,
                boot=boot,
                hardware=hardware,
                blocks=blocks,
                sockets=Sockets(qmp=qmp.fileno(), control=control.fileno()),
                memory=memory,
                template=template,
                incoming=incoming,
            )
            process = await DetachedProcess.spawn(files.directory, argv, pass_fds=(qmp.fileno(), control.fileno()))
        try:
            session = await open_session(files.qmp_socket, within=_UP_SECONDS)
        except BaseException as error:
            process.kill()
            status = await process.ended()
            process.close()
            if isinstance(error, QmpFailed):
                raise StartFailed(f"QEMU {status}: {read_log(files.directory)}") from error
            raise
        return Running(files=files, process=process, session=session, guest=StartingGuest(files, process))


@contextlib.asynccontextmanager
async def ended_on_error(running: Running) -> AsyncIterator[None]:
    """Ends a QEMU where the block raises."""
    try:
        yield
    except BaseException:
        await running.end()
        raise
