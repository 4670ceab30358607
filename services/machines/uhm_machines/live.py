"""A machine while its process lives: followed through the guest's events, stopped, and judged in the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from uhm_common.logs import get_logger
from uhm_machines.channel import EventLog, Verb, encode_run
from uhm_machines.errors import QmpFailed
from uhm_machines.logfiles import read_tail_text
from uhm_machines.progress import Progress, judge
from uhm_machines.qemu.process import read_log
from uhm_machines.qemu.qmp import qmp_session
from uhm_machines.requests import WaitFor
from uhm_machines.states import Status

if TYPE_CHECKING:
    from uhm_machines.channel import GuestChannel
    from uhm_machines.files import MachineFiles
    from uhm_machines.ledger import Ledger
    from uhm_machines.machine import Machine
    from uhm_machines.qemu.process import DetachedProcess, ExitStatus
    from uhm_machines.timeline import Timeline

__all__ = ["LiveMachine", "final_changes"]

log = get_logger()

CONSOLE_LINES: Final = 20
_LOOK_SECONDS: Final = 1.0
"""How often the events are looked at without a bell, which the guest does not ring where that would block it."""
_FORCE_SECONDS: Final = 3.0
"""What a guest gets to unmount after its workload was killed."""
_QUIT_SECONDS: Final = 2.0


class LiveMachine:
    """One machine with a process. `follow` runs as a task of its own for as long as the process lives."""

    def __init__(
        self,
        machine: Machine,
        files: MachineFiles,
        process: DetachedProcess,
        *,
        channel: GuestChannel,
        ledger: Ledger,
        timeline: Timeline | None,
        start_seconds: float,
    ) -> None:
        """`timeline` is None for a machine that a former run of this service has started.

        A guest that has not started its workload `start_seconds` from now hangs, and is ended.
        """
        self.machine = machine
        self.ended = asyncio.Event()
        """The end is recorded, and what it held is given back."""
        self._files = files
        self._process = process
        self._ledger = ledger
        self._timeline = timeline
        self._overdue_at = time.monotonic() + start_seconds
        self._events = EventLog(files.events)
        self._channel = channel
        self._progress = Progress()
        self._run_sent = False
        self._unrecorded = False
        self._gone = asyncio.Event()
        self._running = asyncio.Event()
        self._listening = asyncio.Event()
        self._changing = asyncio.Lock()
        if machine.status is Status.RUNNING:
            self._running.set()
        if machine.listening:
            self._listening.set()

    async def follow(self) -> ExitStatus | None:
        """Follows the guest until QEMU has ended; answers how it did, if that is known.

        May be called again after it has raised, which the database can make it do.
        """
        gone = asyncio.create_task(self._process.ended())
        bell: asyncio.Task[None] | None = None
        try:
            while not gone.done():
                bell = bell or asyncio.create_task(self._channel.bell())
                await self._take_events()
                self._give_up_where_overdue()
                await asyncio.wait({gone, bell}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if bell.done():
                    bell = None
            await self._take_events()
            while self._events.behind:
                await self._take_events()
            return gone.result()
        finally:
            for task in (gone, bell):
                if task is not None:
                    task.cancel()
            self._channel.close()
            if gone.done():
                self._gone.set()

    async def conclude(self, exit_status: ExitStatus | None) -> Machine:
        """Records the end."""
        async with self._changing:
            changes = final_changes(
                self._files, self._progress, exit_status, stop_asked=self.machine.status is Status.STOPPING
            )
            self.machine = await self._ledger.change(self.machine, **changes)
        self._process.close()
        return self.machine

    async def reached(self, wait: WaitFor) -> Machine:
        """Waits until it has come so far, or has ended; answers it as it is then."""
        goal = {WaitFor.RUNNING: self._running, WaitFor.LISTENING: self._listening}.get(wait)
        if goal is not None:
            waiting = [asyncio.create_task(event.wait()) for event in (goal, self.ended)]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
        return self.machine

    async def stop(self, *, grace: float) -> None:
        """Ends it: the stop signal, then after `grace` seconds ever harder means. Returns when the end is recorded."""
        async with self._changing:
            if self.machine.status in {Status.STARTING, Status.RUNNING}:
                self.machine = await self._ledger.change(self.machine, status=Status.STOPPING)
        if self._progress.started is not None and grace > 0:
            await self._send(Verb.SIGNAL, str(self.machine.workload.stop_signal).encode())
        else:
            await self._send(Verb.STOP)
        if not await self._gone_within(grace):
            await self._send(Verb.STOP)
            if not await self._gone_within(_FORCE_SECONDS):
                await self._quit()
        await self.ended.wait()

    async def kill(self) -> None:
        """Ends it at once, without regard for its disk. Returns when the end is recorded."""
        async with self._changing:
            if self.machine.status in {Status.STARTING, Status.RUNNING}:
                self.machine = await self._ledger.change(self.machine, status=Status.STOPPING)
        self._process.kill()
        await self.ended.wait()

    def close(self) -> None:
        """Lets go of it; it goes on."""
        self._channel.close()
        self._process.close()

    def _give_up_where_overdue(self) -> None:
        if self._progress.started is None and time.monotonic() > self._overdue_at:
            log.warning("machine.overdue", machine_id=self.machine.id)
            self._progress.overdue = True
            self._process.kill()

    async def _quit(self) -> None:
        """Ends QEMU by its monitor, else by SIGKILL."""
        log.warning("machine.forced", machine_id=self.machine.id)
        with contextlib.suppress(QmpFailed):
            async with qmp_session(self._files.qmp_socket, within=_QUIT_SECONDS) as session:
                await session.quit()
        if not await self._gone_within(_QUIT_SECONDS):
            self._process.kill()

    async def _gone_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        return self._gone.is_set()

    async def _send(self, verb: Verb, payload: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # QEMU is gone, which `follow` notices
            await self._channel.send(verb, payload)

    async def _take_events(self) -> None:
        """Reads new events, acts on them, and records what they change."""
        events = await asyncio.to_thread(self._events.read_new)
        heard = time.monotonic()
        for event in events:
            self._progress.take(event)
            if self._timeline is not None:
                self._timeline.hear(event, at=heard)
        if self._progress.waiting and not self._progress.started and not self._run_sent:
            self._run_sent = True
            await self._send(Verb.RUN, encode_run(self.machine.workload, machine_id=self.machine.id))
        self._unrecorded |= bool(events)
        if self._unrecorded:
            await self._record()
            self._unrecorded = False

    async def _record(self) -> None:
        progress = self._progress
        listening = progress.listening or (progress.started is not None and not self.machine.workload.watched_ports)
        async with self._changing:
            changes: dict[str, Any] = {"listening": listening}
            if self._timeline is not None:
                changes["phases"] = self._timeline.phases()
            if progress.started is not None and self.machine.started_ns is None:
                changes["started_ns"] = self._events.wall_clock_ns(progress.started)
            if progress.started is not None and self.machine.status is Status.STARTING:
                changes["status"] = Status.RUNNING
            self.machine = await self._ledger.change(self.machine, **changes)
        if progress.started is not None:
            self._running.set()
        if listening:
            self._listening.set()


def final_changes(
    files: MachineFiles, progress: Progress, exit_status: ExitStatus | None, *, stop_asked: bool
) -> dict[str, Any]:
    """What the end of a machine changes in its record."""
    verdict = judge(progress, exit_status, stop_asked=stop_asked, qemu_log=read_log(files.directory))
    failed = verdict.status is Status.FAILED
    return {
        "status": verdict.status,
        "exit_code": verdict.exit_code,
        "reason": verdict.reason,
        "ended_ns": time.time_ns(),
        "pid": None,
        "listening": False,
        "console_tail": read_tail_text(files.console, lines=CONSOLE_LINES) if failed else "",
    }
