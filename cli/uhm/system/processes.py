"""Processes that noted who they are before they executed: found again after any crash, and never mistaken for others.

A process id alone may have been given to somebody else meanwhile; with the start time and the boot it is one process.
Every recorded process leads a process group, so that its children can be ended with it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RecordedProcess", "end_recorded", "read_process", "recorded_argv", "told"]

PROC = Path("/proc")
BOOT_ID = PROC / "sys" / "kernel" / "random" / "boot_id"
WRAPPER = Path(__file__).with_name("recorded.sh")


@dataclass(frozen=True, slots=True)
class RecordedProcess:
    """One process of this boot."""

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether it still runs; one that has ended and that nobody has reaped does not."""
        stat = _stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and stat.state not in "ZX"

    def group(self) -> list[int]:
        """Ids of the living processes of the group that it leads or led, itself included."""
        found = []
        for entry in PROC.glob("[0-9]*"):
            stat = _stat(int(entry.name))
            if (
                stat is not None
                and stat.group == self.pid
                and stat.start_ticks >= self.start_ticks
                and stat.state not in "ZX"
            ):
                found.append(stat.pid)
        return found


@dataclass(frozen=True, slots=True)
class _Stat:
    """What of `/proc/PID/stat` (proc(5)) is needed here."""

    pid: int
    state: str
    group: int
    start_ticks: int

    @classmethod
    def parse(cls, line: str) -> _Stat:
        """The second field, the name, may hold spaces and parentheses: everything else is counted from its end."""
        pid, _, rest = line.partition(" ")
        fields = rest.rpartition(")")[2].split()
        return cls(pid=int(pid), state=fields[0], group=int(fields[2]), start_ticks=int(fields[19]))


def told(name: str, value: str) -> list[int]:
    """Ids of living processes that were given this variable in their environment."""
    variable = f"{name}={value}".encode()
    found = []
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if variable in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def recorded_argv(file: str, argv: Sequence[str]) -> list[str]:
    """The command that notes itself in `file` and then becomes `argv`."""
    return ["/bin/sh", str(WRAPPER), file, *argv]


def read_process(file: Path) -> RecordedProcess | None:
    """The process that noted itself in the file, alive or not; None where there is none, or it is of another boot."""
    with suppress(OSError, ValueError, IndexError):
        boot, line = file.read_text().splitlines()[:2]
        if boot == BOOT_ID.read_text().strip():
            stat = _Stat.parse(line)
            return RecordedProcess(stat.pid, stat.start_ticks)
    return None


def end_recorded(processes: Iterable[RecordedProcess], *, grace: float) -> None:
    """Ends processes and what is left of their groups: first by asking, after `grace` seconds by force."""
    from uhm_common.leftovers import end_processes  # noqa: PLC0415 - heavy

    known = list(processes)
    end_processes([process.pid for process in known if process.is_alive()], grace=grace)
    end_processes([pid for process in known for pid in process.group()], grace=1)


def _stat(pid: int) -> _Stat | None:
    try:
        return _Stat.parse((PROC / str(pid) / "stat").read_text())
    except (OSError, ValueError, IndexError):
        return None
