"""The machines of this host: started, followed to their end, found again after a restart of this service, removed.

For each machine there is a lock, held while its process comes or goes, never while anyone waits for the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import unbind_contextvars

from uhm_common.logs import get_logger
from uhm_common.process import ProcessFailed
from uhm_machines.channel import EventLog, GuestChannel
from uhm_machines.errors import PortInUse, QmpFailed, WrongState
from uhm_machines.files import MachineFiles
from uhm_machines.live import LiveMachine, final_changes
from uhm_machines.logfiles import punch_oldest
from uhm_machines.machine import ID_PATTERN, StartKind
from uhm_machines.output import LogSource
from uhm_machines.progress import Progress
from uhm_machines.qemu.monitor import open_ports_again
from uhm_machines.qemu.process import DetachedProcess, read_exit
from uhm_machines.qemu.qmp import qmp_session
from uhm_machines.states import ENDED, Status

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.capacity import Capacity
    from uhm_machines.exports import ImageExports
    from uhm_machines.ledger import Ledger
    from uhm_machines.machine import Machine
    from uhm_machines.ports import PortBook
    from uhm_machines.starts import Plan, Starts
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
_ADOPT_SECONDS: Final = 10.0
_UNDER_WAY: Final = frozenset({"restored", "started"})
"""Events after which a restored guest needs nobody to lead it on."""


_BEGIN: Final[Mapping[str, Any]] = {
    "status": Status.STARTING,
    "start_reason": "",
    "reason": "",
    "exit_code": None,
    "started_ns": None,
    "ended_ns": None,
    "phases": (),
    "console_tail": "",
}
"""What is recorded of a machine when a start begins."""

Record = Callable[..., Awaitable["Machine"]]
"""As Ledger.change: takes a machine and its changes."""


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

    async def launch(self, machine: Machine, plan: Plan, timeline: Timeline, *, record: Record) -> LiveMachine:
        """Starts a machine that has its directory, as planned or slower. The caller holds its lock.

        `record` writes the machine down with changes, once it has its ports and before anything runs, and answers it.
        Raises what keeps it from starting: CapacityExhausted and PortInUse come before that; what comes later
        (StartFailed and others) leaves it failed.
        """
        self._capacity.take(machine.id, memory_mib=machine.memory_mib)
        try:
            with self._ports.claim(machine.id, name=machine.name, ports=machine.ports) as ports:
                begin = {**_BEGIN, "start_kind": plan.kind, "starts": machine.starts + 1, "ports": ports}
                machine = await record(machine, **begin)
                self._ports.note(machine.id, name=machine.name, ports=ports)
                try:
                    started = await self._starts.run(plan, machine, self.files(machine.id), timeline)
                except BaseException as error:
                    await self._ledger.change(machine, status=Status.FAILED, reason=str(error) or "The start was cut.")
                    raise
        except BaseException:
            self._capacity.release(machine.id)
            raise
        changes = {
            "pid": started.process.pid,
            "start_kind": plan.kind,
            "start_reason": plan.reason,
            "accelerator": plan.shape.accelerator,
            "kernel": plan.disk.boot.kernel_version,
            "phases": timeline.phases(),
            **(_serving() if plan.kind is StartKind.READY else {}),
        }
        begun = machine
        machine = await _insist(lambda: self._ledger.change(begun, **changes), machine_id=machine.id)
        return self._follow(machine, started.process, channel=started.channel, timeline=timeline)

    async def remove(self, machine: Machine) -> None:
        """Removes all that there is of a machine without a process. The caller holds its lock."""
        await self._remove_files(machine)
        await self._ledger.strike(machine)

    async def take_back(self, machine: Machine) -> None:
        """Removes a machine that nobody was told of, as if it had never been made. The caller holds its lock."""
        await self._remove_files(machine)
        await self._ledger.take_back(machine)

    async def _remove_files(self, machine: Machine) -> None:
        if machine.id in self._live:
            raise WrongState(f"Machine {machine.name} runs.")
        await asyncio.to_thread(self.files(machine.id).remove)
        await asyncio.to_thread(self._artifacts.drop_lease, machine.disk_digest, holder=machine.id)

    async def adopt(self) -> None:
        """Takes over the machines of a former run: those that live are followed, the others' ends are recorded."""
        recorded = await self._store.all()
        found: list[tuple[Machine, DetachedProcess]] = []
        for machine in recorded:
            if machine.status not in ENDED and (process := await self._adopt_process(machine)):
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
            live = self._follow(await self._ledger.change(machine, pid=process.pid), process)
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

    async def _adopt_process(self, machine: Machine) -> DetachedProcess | None:
        """The process of a machine that lives; None where there is none.

        One that was being restored when the service ended cannot be led on from there, so it is ended. A kernel that
        boots goes on by itself, as does a guest that was told what to do; only its ports may not all be open.
        """
        files = self.files(machine.id)
        process = await DetachedProcess.adopt(files.directory)
        if process is None or machine.status is not Status.STARTING:
            return process
        events = await asyncio.to_thread(EventLog(files.events).read_rest)
        if not _is_restored(process) or any(event.name in _UNDER_WAY for event in events):
            with contextlib.suppress(QmpFailed, PortInUse):
                async with qmp_session(files.qmp_socket, within=_ADOPT_SECONDS) as session:
                    await open_ports_again(session, machine.ports)
                return process
        log.warning("machine.start_was_cut_short", machine_id=machine.id)
        await process.end()
        files.pid.unlink(missing_ok=True)  # as where it never came to be
        return None

    def _follow(
        self,
        machine: Machine,
        process: DetachedProcess,
        *,
        channel: GuestChannel | None = None,
        timeline: Timeline | None = None,
    ) -> LiveMachine:
        files = self.files(machine.id)
        live = LiveMachine(
            machine,
            files,
            process,
            channel=channel or GuestChannel(files.control_socket),
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
            if machine.starts <= 1:
                await self.take_back(machine)
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
                await process.end()
            await asyncio.to_thread(MachineFiles(stray).remove)


def _is_restored(process: DetachedProcess) -> bool:
    """Whether a QEMU was started to be restored from a snapshot, rather than to boot."""
    with contextlib.suppress(OSError):
        return b"\0-incoming\0" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return False


def _serving() -> dict[str, Any]:
    """What is known of a machine that was restored as it served."""
    return {"status": Status.RUNNING, "started_ns": time.time_ns(), "listening": True}


async def _insist(work: Callable[[], Awaitable[_T]], *, machine_id: str) -> _T:
    """Does what must be done, also where the database goes away for a while."""
    while True:
        try:
            return await work()
        except (SQLAlchemyError, OSError) as error:
            log.warning("machine.not_recorded", machine_id=machine_id, error=str(error))
            await asyncio.sleep(_INSIST_SECONDS)
