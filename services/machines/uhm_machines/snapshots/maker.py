"""Makes snapshots in the background, one at a time: a machine is brought to where it waits or serves, and saved.

    template   boots without a disk, and waits to be told what to run
    ready      boots the image and runs its command; when its health check succeeds, else when all its exposed TCP ports
               listen, and once it has come to rest, its processes are frozen, its file system is written out, and it is
               saved with its disk

The machine works on a memory file that is shared, so saving it writes nothing but the devices' state. What goes wrong
is remembered for a while and told to those who would have used the snapshot: no start waits for one, or fails for lack
of one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from uhm_common.errors import UhmError
from uhm_common.logs import get_logger
from uhm_common.process import ProcessFailed, run
from uhm_machines.channel import Verb, encode_run
from uhm_machines.errors import GuestFailed
from uhm_machines.files import MachineFiles
from uhm_machines.machine import StartKind
from uhm_machines.qemu.argv import MemoryFile
from uhm_machines.qemu.blocks import blank
from uhm_machines.qemu.monitor import save_state
from uhm_machines.qemu.process import DetachedProcess
from uhm_machines.snapshots.health import wait_until_serving
from uhm_machines.snapshots.store import MAKING, template_key
from uhm_machines.starts.wish import HOSTNAME_DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uhm_machines.disks import ImageDisk
    from uhm_machines.exports import ImageExports
    from uhm_machines.shape import Shape
    from uhm_machines.snapshots.store import Snapshot, SnapshotStore
    from uhm_machines.starts.spawner import Running, Spawner
    from uhm_machines.starts.wish import Service

__all__ = ["SnapshotMaker"]

log = get_logger()

_BOOT_SECONDS: Final = 60.0
_FREEZE_SECONDS: Final = 10.0
_END_SECONDS: Final = 10.0
_DIG_SECONDS: Final = 60.0
_REMEMBER_SECONDS: Final = 600.0
"""How long a failure keeps the same snapshot from being tried again."""
_HOSTNAME: Final = "0" * HOSTNAME_DIGITS
"""What the machine is called until its clones get names."""
_MACHINE_ID: Final = "0" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    key: str
    shape: Shape
    disk: ImageDisk
    service: Service | None
    """None: a template."""

    @property
    def kind(self) -> StartKind:
        return StartKind.TEMPLATE if self.service is None else StartKind.READY


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    at: float


class SnapshotMaker:
    """Takes wishes, and fulfils them in `run`."""

    def __init__(
        self,
        directory: Path,
        *,
        store: SnapshotStore,
        spawner: Spawner,
        exports: ImageExports,
        enabled: bool,
    ) -> None:
        self._directory = directory
        self._store = store
        self._spawner = spawner
        self._exports = exports
        self._enabled = enabled
        self._jobs: dict[str, _Job] = {}
        self._failures: dict[str, _Failure] = {}
        self._gone: set[str] = set()
        self._wanted = asyncio.Event()
        self.made: Callable[[Snapshot, Shape, ImageDisk], None] = lambda _snapshot, _shape, _disk: None
        """Called with each snapshot that was wanted, once there is one."""

    def want_template(self, shape: Shape, disk: ImageDisk) -> str:
        """Has the template of a shape made, where it is not; answers why it is not there."""
        return self._want(_Job(key=template_key(shape), shape=shape, disk=disk, service=None))

    def want_ready(self, shape: Shape, disk: ImageDisk, service: Service) -> str:
        """Has the snapshot of an image's service made, where it is not; answers why it is not there."""
        return self._want(_Job(key=service.key(shape), shape=shape, disk=disk, service=service))

    def give_up(self, key: str, reason: str) -> None:
        """Has a snapshot not made again for a while: machines that were made of it did not come up."""
        self._failures[key] = _Failure(reason, time.monotonic())

    def forget_image(self, image_id: str) -> None:
        """Deletes the snapshots of an image that was deleted, and makes no more."""
        self._gone.add(image_id)
        for key, job in list(self._jobs.items()):
            if job.service is not None and job.service.image.id == image_id:
                del self._jobs[key]
        self._store.drop_where(lambda snapshot: snapshot.image_id == image_id)

    async def sweep(self) -> None:
        """Ends what a former run of this service was making. Call it before the store is opened."""
        for directory in self._directory.glob(f"{MAKING}*/"):
            if process := await DetachedProcess.adopt(directory):
                await process.end()

    async def run(self) -> None:
        """Makes what is wanted, in the order of the wishes, until cancelled."""
        while True:
            await self._wanted.wait()
            while self._jobs:
                job = next(iter(self._jobs.values()))
                try:
                    await self._make(job)
                except (UhmError, ProcessFailed, OSError) as error:
                    reason = str(error).rstrip(".")
                    self._failures[job.key] = _Failure(reason, time.monotonic())
                    log.warning("snapshot.not_made", kind=job.kind, key=job.key[:12], reason=reason)
                finally:
                    self._jobs.pop(job.key, None)
            self._wanted.clear()

    def _want(self, job: _Job) -> str:
        if not self._enabled:
            return "snapshots are turned off (UHM_SNAPSHOTS)"
        if job.service is not None and job.service.image.id in self._gone:
            return "the image was deleted"
        failure = self._failures.get(job.key)
        if failure is not None and time.monotonic() - failure.at < _REMEMBER_SECONDS:
            return f"its snapshot could not be made or used ({failure.reason})"
        if (snapshot := self._store.find(job.key)) is not None:
            self.made(snapshot, job.shape, job.disk)
        else:
            self._jobs.setdefault(job.key, job)
            self._wanted.set()
        whose = "for" if job.service is None else "of this image with"
        return f"there is none {whose} {job.shape} yet; it is being made"

    async def _make(self, job: _Job) -> None:
        began = time.monotonic()
        files = MachineFiles(await asyncio.to_thread(self._store.new_directory))
        holder = files.directory.name
        try:
            if job.service is not None:
                await self._exports.acquire(job.disk.digest, machine_id=holder)
            try:
                await self._bring_up_and_save(job, files)
            finally:
                if job.service is not None:
                    await self._exports.release(job.disk.digest, machine_id=holder)
            snapshot = await asyncio.to_thread(self._seal, job, files)
            if snapshot.image_id in self._gone:
                return
            self._store.commit(files.directory, snapshot)
        finally:
            await asyncio.to_thread(files.remove)
        self._store.sweep()
        seconds = round(time.monotonic() - began, 3)
        log.info("snapshot.made", kind=job.kind, key=job.key[:12], bytes=snapshot.bytes, seconds=seconds)
        self.made(snapshot, job.shape, job.disk)

    async def _bring_up_and_save(self, job: _Job, files: MachineFiles) -> None:
        await asyncio.to_thread(files.begin_start)
        if job.service is not None:
            await asyncio.to_thread(self._spawner.make_disk, files, job.disk)
        running = await self._spawner.spawn(
            files,
            boot=job.disk.boot,
            hardware=job.shape.hardware,
            blocks=blank(job.shape.disk_size) if job.service is None else self._spawner.disk_nodes(files, job.disk),
            memory=MemoryFile(path=(files.directory / "memory").absolute(), shared=True),
            template=job.service is None,
        )
        try:
            await running.guest.expect("waiting", within=_BOOT_SECONDS)
            if job.service is not None:
                await _serve(running, job.service)
            await save_state(running.session, files.directory / "state")
            await running.session.quit()
            async with asyncio.timeout(_END_SECONDS):
                await running.process.ended()
        except TimeoutError:
            raise GuestFailed("QEMU did not end") from None
        finally:
            await running.end()

    def _seal(self, job: _Job, files: MachineFiles) -> Snapshot:
        """Keeps what a snapshot consists of; gives back the pages of its memory that hold nothing. Blocks."""
        run(["fallocate", "--dig-holes", files.directory / "memory"], timeout=_DIG_SECONDS)
        kept = {"memory", "state", files.disk.name}
        for path in files.directory.iterdir():
            if path.name not in kept:
                path.unlink()
        image = job.service.image if job.service is not None else None
        return self._store.seal(
            files.directory,
            key=job.key,
            kind=job.kind,
            image_id=image.id if image else "",
            disk_digest=image.disk_digest if image else "",
        )


async def _serve(running: Running, service: Service) -> None:
    """Runs the image's command until it serves, and freezes it."""
    workload = replace(service.workload, hostname=_HOSTNAME)
    await running.guest.send(Verb.RUN, encode_run(workload, machine_id=_MACHINE_ID))
    await running.guest.expect("started", within=_BOOT_SECONDS)
    await wait_until_serving(running, service)
    await running.guest.send(Verb.FREEZE)
    frozen = await running.guest.expect("frozen", "unfrozen", within=_FREEZE_SECONDS)
    if frozen.name == "unfrozen":
        raise GuestFailed(f"its processes could not be frozen: {frozen.argument}")
