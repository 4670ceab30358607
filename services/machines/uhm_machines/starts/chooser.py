"""The kinds of start as one small state machine: the fastest that fits is planned, and what fails falls back.

    ready ──▶ template ──▶ cold

A snapshot that does not fit is not found, one that does not load is deleted; both only make the start slower, and the
machine says why. What a machine itself is to blame for (its ports, its image) is raised.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uhm_common.logs import get_logger
from uhm_machines.disks import read_image_disk
from uhm_machines.errors import GuestFailed, QmpFailed, StartFailed
from uhm_machines.machine import StartKind
from uhm_machines.qemu.monitor import open_ports
from uhm_machines.shape import shape_of
from uhm_machines.snapshots.store import template_key
from uhm_machines.starts.plan import Plan
from uhm_machines.starts.spares import SpareKind
from uhm_machines.starts.spawner import ended_on_error
from uhm_machines.starts.wish import why_not_ready
from uhm_machines.timeline import Mark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.channel import GuestChannel
    from uhm_machines.disks import ImageDisk
    from uhm_machines.exports import ImageExports
    from uhm_machines.files import MachineFiles
    from uhm_machines.machine import Machine
    from uhm_machines.probe import HostProbe
    from uhm_machines.qemu.process import DetachedProcess
    from uhm_machines.shape import Shape
    from uhm_machines.snapshots.maker import SnapshotMaker
    from uhm_machines.snapshots.store import SnapshotStore
    from uhm_machines.starts.restorer import Restorer
    from uhm_machines.starts.spares import Spares
    from uhm_machines.starts.spawner import Running, Spawner
    from uhm_machines.starts.wish import Wish
    from uhm_machines.timeline import Timeline

__all__ = ["Started", "Starts"]

log = get_logger()

SLOWER: Final[Mapping[StartKind, StartKind]] = {
    StartKind.READY: StartKind.TEMPLATE,
    StartKind.TEMPLATE: StartKind.COLD,
}
"""What each kind falls back to."""
_BROKEN_SNAPSHOT: Final = (StartFailed, QmpFailed, GuestFailed, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A machine whose QEMU is up; its ports are open."""

    process: DetachedProcess
    channel: GuestChannel
    plan: Plan


class Starts:
    """Plans starts and carries them out."""

    def __init__(
        self,
        *,
        probe: HostProbe,
        exports: ImageExports,
        artifacts: ArtifactStore,
        spawner: Spawner,
        restorer: Restorer,
        store: SnapshotStore,
        maker: SnapshotMaker,
        spares: Spares,
        parallel: int,
    ) -> None:
        """At most `parallel` guests boot or are restored at once: more would only get in each other's way."""
        self._probe = probe
        self._exports = exports
        self._artifacts = artifacts
        self._spawner = spawner
        self._restorer = restorer
        self._store = store
        self._maker = maker
        self._spares = spares
        self._slots = asyncio.Semaphore(parallel)
        self._closing: set[asyncio.Task[None]] = set()

    async def plan(self, wish: Wish) -> Plan:
        """The fastest start that fits, and why no faster one; has missing snapshots made in the background.

        The caller runs the plan or drops it. Raises NotFound for a disk that is gone, HostUnsuitable.
        """
        disk = read_image_disk(self._artifacts, wish.disk_digest)
        shape = await shape_of(disk, self._probe, memory_mib=wish.memory_mib, vcpus=wish.vcpus)
        reasons: list[str] = []
        for kind, key, obstacle in self._candidates(wish, shape):
            snapshot = None if obstacle else self._store.find(key)
            if snapshot is None:
                reasons.append(f"{kind}: {obstacle or self._have_made(kind, wish, disk, shape)}")
                continue
            self._store.touch(snapshot)
            spare = None if wish.has_disk else self._spares.claim(key)
            self._spares.want(SpareKind(snapshot=snapshot, shape=shape, boot=disk.boot, disk=disk))
            return Plan(kind=kind, reasons=reasons, disk=disk, shape=shape, snapshot=snapshot, spare=spare)
        return Plan(kind=StartKind.COLD, reasons=reasons, disk=disk, shape=shape)

    async def drop(self, plan: Plan) -> None:
        """Gives up a plan that was not run."""
        if plan.spare is not None:
            spare, plan.spare = plan.spare, None
            await self._spares.discard(spare)

    async def run(self, plan: Plan, machine: Machine, files: MachineFiles, timeline: Timeline) -> Started:
        """Starts a machine as planned, or slower. Its ports are claimed already.

        Leaves nothing running where it raises: StartFailed, PortInUse, HostUnsuitable, and NotFound for a disk that is
        gone.
        """
        await self._exports.acquire(plan.disk.digest, machine_id=machine.id)
        try:
            async with self._slots:
                while plan.snapshot is not None:
                    try:
                        return await self._restored(plan, machine, files, timeline)
                    except _BROKEN_SNAPSHOT as error:
                        self._fall_back(plan, error, files)
                return await self._cold(plan, machine, files, timeline)
        except BaseException:
            await self._exports.release(plan.disk.digest, machine_id=machine.id)
            raise

    def _candidates(self, wish: Wish, shape: Shape) -> list[tuple[StartKind, str, str]]:
        """Each kind that needs a snapshot: the snapshot's key, and what else is in its way."""
        obstacle = why_not_ready(wish)
        key = wish.service.key(shape) if wish.service is not None and not obstacle else ""
        slow = "a slower kind was asked for" if wish.fastest is StartKind.COLD else ""
        return [(StartKind.READY, key, obstacle), (StartKind.TEMPLATE, template_key(shape), slow)]

    def _have_made(self, kind: StartKind, wish: Wish, disk: ImageDisk, shape: Shape) -> str:
        """Has a missing snapshot made; answers why it is not there."""
        if kind is StartKind.TEMPLATE:
            return self._maker.want_template(shape, disk)
        assert wish.service is not None
        return self._maker.want_ready(shape, disk, wish.service)

    def _fall_back(self, plan: Plan, error: Exception, files: MachineFiles) -> None:
        """Takes the next slower kind. A template is not to blame for what an image does in it."""
        assert plan.snapshot is not None
        reason = str(error).rstrip(".")
        log.warning("start.fell_back", kind=plan.kind, snapshot=plan.snapshot.key[:12], reason=reason)
        if plan.kind is StartKind.READY or not isinstance(error, GuestFailed):
            self._store.drop(plan.snapshot.key)
        if plan.kind is StartKind.READY and isinstance(error, GuestFailed):
            self._maker.give_up(plan.snapshot.key, reason)
        plan.reasons.append(f"{plan.kind}: the snapshot could not be used ({reason})")
        if plan.kind is StartKind.READY:
            files.discard_disk()
        plan.kind = SLOWER[plan.kind]
        plan.snapshot = self._store.find(template_key(plan.shape)) if plan.kind is StartKind.TEMPLATE else None
        if plan.kind is StartKind.TEMPLATE and plan.snapshot is None:
            plan.reasons.append(f"{plan.kind}: {self._maker.want_template(plan.shape, plan.disk)}")

    async def _restored(self, plan: Plan, machine: Machine, files: MachineFiles, timeline: Timeline) -> Started:
        assert plan.snapshot is not None
        timeline.mark(Mark.PREPARED)
        spare, plan.spare = plan.spare, None
        if spare is not None:
            running = spare.running
        else:
            running = await self._restorer.load(
                files,
                plan.snapshot,
                shape=plan.shape,
                boot=plan.disk.boot,
                disk=plan.disk if plan.kind is StartKind.READY else None,
            )
        timeline.mark(Mark.SPAWNED)
        async with ended_on_error(running):
            await self._restorer.hand_over(running, machine, kind=plan.kind, disk=plan.disk)
            timeline.mark(Mark.RESTORED)
        return self._started(running, plan)

    async def _cold(self, plan: Plan, machine: Machine, files: MachineFiles, timeline: Timeline) -> Started:
        plan.kind = StartKind.COLD
        await asyncio.to_thread(files.begin_start)
        await asyncio.to_thread(self._spawner.make_disk, files, plan.disk)
        timeline.mark(Mark.PREPARED)
        running = await self._spawner.spawn(
            files,
            boot=plan.disk.boot,
            hardware=plan.shape.hardware,
            blocks=self._spawner.disk_nodes(files, plan.disk),
        )
        async with ended_on_error(running):
            await open_ports(running.session, machine.ports)
        timeline.mark(Mark.SPAWNED)
        return self._started(running, plan)

    def _started(self, running: Running, plan: Plan) -> Started:
        """Frees the monitor, which nobody need wait for."""
        closing = asyncio.create_task(running.session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return Started(process=running.process, channel=running.guest.channel, plan=plan)
