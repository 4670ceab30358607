"""What /proc says of the processes of a system: each has its working directory below the state directory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "forget_peak", "module_of", "open_files", "peak_mib", "processes_below", "pss_mib", "rss_mib"]

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One that runs; `directory` is its working directory, `program` its executable's name."""

    pid: int
    program: str
    directory: str


def processes_below(directory: Path) -> list[Process]:
    """All whose working directory is this one or below it, also where that was deleted."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile, or is a kernel thread
                where = (entry / "cwd").readlink()
                if where.is_relative_to(directory.resolve()):
                    program = (entry / "exe").readlink().name
                    found.append(Process(pid=int(entry.name), program=program, directory=str(where)))
    return found


def pss_mib(pid: int) -> float:
    """The proportional set size: what it shares with others counts in parts."""
    return _mib(_PROC / str(pid) / "smaps_rollup", "Pss:")


def rss_mib(pid: int) -> float:
    """The resident set size."""
    return _mib(_PROC / str(pid) / "status", "VmRSS:")


def forget_peak(pid: int) -> None:
    """Begins anew to note the largest resident set size."""
    (_PROC / str(pid) / "clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The largest resident set size since it began, or since `forget_peak`."""
    return _mib(_PROC / str(pid) / "status", "VmHWM:")


def module_of(pid: int) -> str:
    """The module that it runs as `python -m`; empty where it does not."""
    words = (_PROC / str(pid) / "cmdline").read_text().split("\0")
    return words[words.index("-m") + 1] if "-m" in words else ""


def open_files(pid: int) -> int:
    """How many file descriptors it has."""
    return sum(1 for _ in (_PROC / str(pid) / "fd").iterdir())


def _mib(path: Path, name: str) -> float:
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
