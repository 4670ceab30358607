"""Runs a command and ends every process that it has started and left, also those that became daemons.

    python -m tools.contained COMMAND [ARGUMENT...]

This process makes itself the one that orphans below it are handed to (PR_SET_CHILD_SUBREAPER, prctl(2)), so all that
remains when the command has ended are its own children. The exit code is the command's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_common.leftovers import end_processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 10.0
PARENT_FIELD = 1  # of /proc/PID/stat, counted after the name, which may hold blanks


def main(command: list[str]) -> int:
    """Answers the exit code of the command; 128 + n where signal n ended it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    early: list[int] = []
    handle(lambda number, _frame: early.append(number))
    child = subprocess.Popen(command)
    handle(lambda number, _frame: os.kill(child.pid, number))
    for number in early:
        os.kill(child.pid, number)
    code = child.returncode = wait_for(child.pid)
    while left := children():
        end_processes(left, grace=GRACE_SECONDS)
        reap()
    return code if code >= 0 else 128 - code


def wait_for(pid: int) -> int:
    """Waits for a child and answers its exit code, negative for a signal; meanwhile orphans that end are reaped."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Has the signals that ask a program to end go to a handler."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def children() -> list[int]:
    """Processes whose parent is this one, without those that have ended."""
    reap()
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[PARENT_FIELD]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def reap() -> None:
    """Takes note of children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
