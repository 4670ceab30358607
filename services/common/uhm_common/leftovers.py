"""Ends and removes what a program leaves in the kernel when it is killed: processes, mounts, control groups.

Everything is found through a name that belongs to one instance of the program, never through the program's name alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from uhm_common.process import run

__all__ = ["end_cgroup", "end_processes", "processes_of", "unmount_below"]

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
MOUNT_POINT_FIELD = 4


def processes_of(word: str, *, programs: tuple[str, ...]) -> list[int]:
    """Ids of processes whose command line mentions `word`; their executables' names start with one of `programs`."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is a kernel thread
            if word.encode() in (entry / "cmdline").read_bytes() and (entry / "exe").readlink().name.startswith(
                programs
            ):
                found.append(int(entry.name))
    return found


def end_processes(pids: list[int], *, grace: float) -> None:
    """Asks processes to end, waits `grace` seconds in all, and kills what is still there. They need not be children."""
    handles = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    try:
        remaining = _signal_and_wait(handles, signal.SIGTERM, within=grace)
        _signal_and_wait(remaining, signal.SIGKILL, within=5)
    finally:
        for handle in handles:
            os.close(handle)


def _signal_and_wait(handles: list[int], number: signal.Signals, *, within: float) -> list[int]:
    """Signals processes by their pidfds and answers those that have not ended in time."""
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
    deadline = time.monotonic() + within
    remaining = list(handles)
    while remaining and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(remaining, [], [], left)
        remaining = [handle for handle in remaining if handle not in ended]
    return remaining


def unmount_below(directory: Path) -> None:
    """Detaches every mount at or below a directory, the deepest first."""
    lines = (PROC / "self" / "mountinfo").read_text().splitlines()
    points = [Path(line.split()[MOUNT_POINT_FIELD].encode().decode("unicode_escape")) for line in lines]
    below = [point for point in points if point.is_relative_to(directory.resolve())]
    for point in sorted(below, key=lambda point: len(point.parts), reverse=True):
        run(["umount", "--lazy", point], timeout=30)


def end_cgroup(name: str) -> None:
    """Kills what runs in a top-level control group, in every hierarchy (version 1 and 2), and removes it."""
    for top in [CGROUPS / name, *CGROUPS.glob(f"*/{name}")]:
        groups = [top, *sorted(path for path in top.rglob("*") if path.is_dir())] if top.is_dir() else []
        for group in groups:
            end_processes([int(pid) for pid in (group / "cgroup.procs").read_text().split()], grace=0)
        for group in reversed(groups):
            with contextlib.suppress(OSError):  # busy or gone already; an empty group costs nothing
                group.rmdir()
