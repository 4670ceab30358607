"""The machines of this host: started, followed to their end, found again after a restart of this service, removed.

For each machine there is a lock, held while its process comes or goes, never while anyone waits for the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import unbind_contextvars

from uhm_common.logs import get_logger
from uhm_common.process import ProcessFailed
from uhm_machines.channel import EventLog
from uhm_machines.errors import WrongState
from uhm_machines.files import MachineFiles
from uhm_machines.live import LiveMachine, final_changes
from uhm_machines.logfiles import punch_oldest
from uhm_machines.machine import ID_PATTERN
from uhm_machines.output import LogSource
from uhm_machines.progress import Progress
from uhm_machines.qemu.process import DetachedProcess, read_exit
from uhm_machines.states import ENDED, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.capacity import Capacity
    from uhm_machines.exports import ImageExports
    from uhm_machines.ledger import Ledger
    from uhm_machines.machine import Machine
    from uhm_machines.ports import PortBook
    from uhm_machines.starts import Starts
    from uhm_machines.store import MachineStore
    from uhm_machines.timeline import Timeline

__all__ = ["Supervisor"]

log = get_logger()

_T = TypeVar("_T")

LINGER_SECONDS: Final = 10.0
"""How long a machine that is deleted when it ends can still be asked for its exit code and its output."""
STOP_AGAIN_GRACE_SECONDS: Final = 10.0
_LOG_CHECK_SECONDS: Final = 1.0
_KEPT_EVENT_BYTES: Final = 1 << 20
"""Events of a well-behaved guest are a few lines; nobody else's shall fill the disk."""
_INSIST_SECONDS: Final = 1.0


class Supervisor:
    """Keeps records and processes in step."""

    def __init__(
        self,
        directory: Path,
        *,
        store: MachineStore,
        ledger: Ledger,
        starts: Starts,
        exports: ImageExports,
        artifacts: ArtifactStore,
        ports: PortBook,
        capacity: Capacity,
        start_seconds: float,
    ) -> None:
        self._directory = directory
        self._store = store
        self._ledger = ledger
        self._starts = starts
        self._exports = exports
        self._artifacts = artifacts
        self._ports = ports
        self._capacity = capacity
        self._start_seconds = start_seconds
        self._live: dict[str, LiveMachine] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()

    def files(self, machine_id: str) -> MachineFiles:
        """Where a machine's files are."""
        return MachineFiles(self._directory / machine_id)

    def live(self, machine_id: str) -> LiveMachine | None:
        """The machine, where it has a process."""
        return self._live.get(machine_id)

    def lock(self, machine_id: str) -> asyncio.Lock:
        """Held while a machine's process comes or goes, or its files do."""
        return self._locks.setdefault(machine_id, asyncio.Lock())

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Runs something to its end, whoever asked for it going away; until this service stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def launch(self, machine: Machine, timeline: Timeline) -> LiveMachine:
        """Starts a machine that has its directory. The caller holds its lock.

        Raises what keeps it from starting: CapacityExhausted and PortInUse leave it as it was, what comes later
        (StartFailed and others) leaves it failed.
        """
        self._capacity.take(machine.id, memory_mib=machine.memory_mib)
        try:
            with self._ports.claim(machine.id, name=machine.name, ports=machine.ports) as ports:
                machine = await self._ledger.change(
                    machine,
                    status=Status.STARTING,
                    starts=machine.starts + 1,
                    ports=ports,
                    reason="",
                    exit_code=None,
                    started_ns=None,
                    ended_ns=None,
                    phases=(),
                    console_tail="",
                )
                try:
                    started = await self._starts.run(machine, self.files(machine.id), timeline)
                except BaseException as error:
                    await self._ledger.change(machine, status=Status.FAILED, reason=str(error) or "The start was cut.")
                    raise
        except BaseException:
            self._capacity.release(machine.id)
            raise
        machine = await self._ledger.change(
            machine,
            pid=started.process.pid,
            start_kind=started.kind,
            accelerator=started.accelerator,
            kernel=started.kernel,
            phases=timeline.phases(),
        )
        return self._follow(machine, started.process, timeline)

    async def remove(self, machine: Machine) -> None:
        """Removes all that there is of a machine without a process. The caller holds its lock."""
        if machine.id in self._live:
            raise WrongState(f"Machine {machine.name} runs.")
        await asyncio.to_thread(self.files(machine.id).remove)
        await asyncio.to_thread(self._artifacts.drop_lease, machine.disk_digest, holder=machine.id)
        await self._ledger.strike(machine)

    async def adopt(self) -> None:
        """Takes over the machines of a former run: those that live are followed, the others' ends are recorded."""
        recorded = await self._store.all()
        found: list[tuple[Machine, DetachedProcess]] = []
        for machine in recorded:
            if machine.status not in ENDED and (
                process := await DetachedProcess.adopt(self.files(machine.id).directory)
            ):
                found.append((machine, process))
            elif machine.status not in ENDED:
                await self._conclude_absent(machine)
            elif machine.auto_remove:
                await self.remove(machine)
        await self._sweep({machine.id for machine in recorded})
        users: dict[str, set[str]] = {}
        for machine, _ in found:
            users.setdefault(machine.disk_digest, set()).add(machine.id)
        await self._exports.adopt(users)
        for machine, process in found:
            self._capacity.note(machine.id, memory_mib=machine.memory_mib)
            self._ports.note(machine.id, name=machine.name, ports=machine.ports)
            live = self._follow(await self._ledger.change(machine, pid=process.pid), process, None)
            if machine.status is Status.STOPPING:
                self.spawn(live.stop(grace=STOP_AGAIN_GRACE_SECONDS))
        log.info("machines.adopted", live=len(found), recorded=len(recorded))

    async def stop_all(self, *, grace: float) -> None:
        """Ends every machine, all at once."""
        await asyncio.gather(*(live.stop(grace=grace) for live in list(self._live.values())))

    async def bound_logs(self, *, keep: int) -> None:
        """Keeps each log of each live machine below about `keep` bytes, until cancelled."""
        while True:
            await asyncio.sleep(_LOG_CHECK_SECONDS)
            for machine_id in list(self._live):
                files = self.files(machine_id)
                try:
                    await asyncio.to_thread(punch_oldest, files.output, LogSource.OUTPUT, keep=keep)
                    await asyncio.to_thread(punch_oldest, files.console, LogSource.CONSOLE, keep=keep)
                    await asyncio.to_thread(punch_oldest, files.events, LogSource.CONSOLE, keep=_KEPT_EVENT_BYTES)
                except (ProcessFailed, OSError) as error:
                    log.warning("machine.log_not_bounded", machine_id=machine_id, error=str(error))

    async def close(self) -> None:
        """Lets go of all machines; they go on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for live in self._live.values():
            live.close()
        self._live.clear()

    def _follow(self, machine: Machine, process: DetachedProcess, timeline: Timeline | None) -> LiveMachine:
        live = LiveMachine(
            machine,
            self.files(machine.id),
            process,
            ledger=self._ledger,
            timeline=timeline,
            start_seconds=self._start_seconds,
        )
        self._live[machine.id] = live
        context = copy_context()
        context.run(unbind_contextvars, "method", "request_id")  # the call that started it will be over
        context.run(self.spawn, self._see_to_end(live))
        return live

    async def _see_to_end(self, live: LiveMachine) -> None:
        machine_id = live.machine.id
        exit_status = await _insist(live.follow, machine_id=machine_id)
        async with self.lock(machine_id):
            machine = await _insist(lambda: live.conclude(exit_status), machine_id=machine_id)
            log.info("machine.ended", machine_id=machine_id, status=machine.status, exit_code=machine.exit_code)
            await self._exports.release(machine.disk_digest, machine_id=machine_id)
            self._ports.release(machine_id)
            self._capacity.release(machine_id)
            del self._live[machine_id]
        live.ended.set()
        if machine.auto_remove:
            await asyncio.sleep(LINGER_SECONDS)
            await _insist(lambda: self._remove_ended(machine), machine_id=machine_id)

    async def _remove_ended(self, machine: Machine) -> None:
        async with self.lock(machine.id):
            if machine.id not in self._live:
                await self.remove(machine)

    async def _conclude_absent(self, machine: Machine) -> None:
        """Records the end of a machine that ended, or never came to be, while no service ran."""
        files = self.files(machine.id)
        if not files.pid.exists():
            if machine.starts <= 1:  # nobody was told of it
                await self.remove(machine)
            else:
                reason = "Its start was cut short by a restart of the service."
                await self._ledger.change(machine, status=Status.FAILED, reason=reason, ended_ns=time.time_ns())
            return
        progress, events = Progress(), EventLog(files.events)
        for event in await asyncio.to_thread(events.read_rest):
            progress.take(event)
        changes = final_changes(
            files, progress, read_exit(files.directory), stop_asked=machine.status is Status.STOPPING
        )
        if progress.started is not None and machine.started_ns is None:
            changes["started_ns"] = events.wall_clock_ns(progress.started)
        with contextlib.suppress(OSError):
            changes["ended_ns"] = (files.directory / "exit").stat().st_mtime_ns
        machine = await self._ledger.change(machine, **changes)
        if machine.auto_remove:
            await self.remove(machine)

    async def _sweep(self, known: set[str]) -> None:
        """Ends and removes what has no record, which only a lost database leaves behind."""
        strays = [
            path for path in self._directory.glob("*/") if ID_PATTERN.fullmatch(path.name) and path.name not in known
        ]
        for stray in strays:
            log.warning("machine.stray_removed", machine_id=stray.name)
            if process := await DetachedProcess.adopt(stray):
                process.kill()
                await process.ended()
                process.close()
            await asyncio.to_thread(MachineFiles(stray).remove)


async def _insist(work: Callable[[], Awaitable[_T]], *, machine_id: str) -> _T:
    """Does what must be done, also where the database goes away for a while."""
    while True:
        try:
            return await work()
        except (SQLAlchemyError, OSError) as error:
            log.warning("machine.not_recorded", machine_id=machine_id, error=str(error))
            await asyncio.sleep(_INSIST_SECONDS)
