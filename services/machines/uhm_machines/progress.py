"""How far a guest has come, from its events, and what became of a machine that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uhm_machines.qemu.process import ExitStatus
from uhm_machines.states import Status

if TYPE_CHECKING:
    from uhm_machines.channel import GuestEvent

__all__ = ["Progress", "Verdict", "judge"]

KILLED: Final = 128 + 9
EXIT_CODE_DIGITS: Final = 3


@dataclass(slots=True)
class Progress:
    """What the guest has said so far."""

    booted: bool = False
    """Its init has spoken."""
    waiting: bool = False
    """It wants to be told what to run."""
    started: GuestEvent | None = None
    listening: bool = False
    error: str = ""
    exit_code: int | None = None
    overdue: bool = False
    """It was given up: its workload was not started in the time that a start may take."""

    def take(self, event: GuestEvent) -> None:
        """Adds an event; unknown ones are passed over."""
        self.booted = True
        match event.name:
            case "waiting":
                self.waiting = True
            case "started":
                self.started = event
            case "restored":
                self.started = event
                self.listening = True
            case "ready":
                self.listening = True
            case "error":
                self.error = event.argument
            case "exit" if event.argument.isdecimal() and len(event.argument) <= EXIT_CODE_DIGITS:
                self.exit_code = int(event.argument)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is recorded of a machine that has ended."""

    status: Status
    exit_code: int | None
    reason: str


def judge(progress: Progress, exit_status: ExitStatus | None, *, stop_asked: bool, qemu_log: str) -> Verdict:
    """What became of a machine: the guest's word first, then the wish to stop it, then what QEMU's end tells."""
    if progress.error:
        return Verdict(Status.FAILED, progress.exit_code, _sentence(progress.error))
    if progress.exit_code is not None:
        return Verdict(Status.EXITED, progress.exit_code, "Stopped." if stop_asked else "")
    if progress.overdue:
        return Verdict(Status.FAILED, None, "The guest did not come up in time; its console may tell why.")
    if stop_asked:
        forced = "Ended by force: it did not end in the time it was given."
        return Verdict(Status.EXITED, KILLED, forced if progress.started else "Stopped before its command was started.")
    if exit_status == ExitStatus(0) and not progress.booted:
        return Verdict(Status.FAILED, None, "The guest's kernel did not come up; more memory may help.")
    return Verdict(Status.FAILED, None, _sentence(_end_of_qemu(exit_status, qemu_log)))


def _end_of_qemu(exit_status: ExitStatus | None, qemu_log: str) -> str:
    if exit_status is None:
        return "QEMU vanished, and nothing tells how; the host may have been restarted"
    if exit_status.number == 0:
        return "the guest ended without an exit code; the end of its console may tell why"
    said = f": {qemu_log.splitlines()[-1]}" if exit_status.number < KILLED - 9 and qemu_log else ""
    return f"QEMU {exit_status}{said}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."
