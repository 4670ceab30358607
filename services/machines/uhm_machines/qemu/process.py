"""Processes that outlive this service: started in a directory of their own, found again there, and seen to end.

In the directory, beside what the program itself writes:

    lock        held (flock) by the program and its wrapper as long as either lives; whoever started them may be gone
    pid         the program's process id
    exit        how it ended, as the shell says it: its exit code, or 128 + the number of a signal
    qemu.log    what it wrote to standard output and standard error

The wrapper is a shell in a session of its own, so that what stops this service, also with its process group, does not
stop them. Liveness is the lock's, not the pid's: ids are used again, locks are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from uhm_common.process import child_environment, tail
from uhm_machines.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DetachedProcess", "ExitStatus", "cpu_seconds", "read_exit", "read_log"]

_WRAPPER = (
    'rm -f exit; "$@" >&2 & echo $! >pid.new; mv pid.new pid; echo $!; exec >&-; '
    "wait $!; echo $? >exit.new; mv exit.new exit"
)
_LOG_TAIL_BYTES = 8192
_POLL_SECONDS = 0.005
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended, from the shell's number."""

    number: int

    def __str__(self) -> str:
        if self.number > 128:
            number = self.number - 128
            with contextlib.suppress(ValueError):
                return f"was ended by signal {number} ({signal.Signals(number).name})"
        return f"ended with exit code {self.number}"


@dataclass(slots=True)
class DetachedProcess:
    """A running program; it may have been started by a former process of this service."""

    directory: Path
    pid: int
    _pidfd: int | None
    """None: it had ended before one could be had."""
    _wrapper: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    async def spawn(cls, directory: Path, argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Self:
        """Starts a program with `directory` as its working directory and returns once it has a process id.

        A program that does not exist ends at once, with 127. Raises StartFailed where one runs there already.
        """
        spawning = asyncio.ensure_future(asyncio.to_thread(cls._spawn, directory, argv, tuple(pass_fds)))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:  # the thread goes on
            process = await spawning
            process.kill()
            process.close()
            raise

    @classmethod
    def _spawn(cls, directory: Path, argv: Sequence[str], pass_fds: tuple[int, ...]) -> Self:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StartFailed(f"A process of {directory.name} runs already.") from error
            with (directory / "qemu.log").open("wb") as log:
                wrapper = subprocess.Popen(
                    ["sh", "-c", _WRAPPER, "sh", *argv],
                    cwd=directory,
                    env=child_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(lock, *pass_fds),
                )
        finally:
            os.close(lock)
        assert wrapper.stdout is not None
        with wrapper.stdout as pipe:
            line = pipe.readline()
        if not line:
            wrapper.wait()
            raise StartFailed(f"{argv[0]} did not start: {read_log(directory)}")
        pid = int(line)
        try:
            return cls(directory, pid, os.pidfd_open(pid), wrapper)
        except ProcessLookupError:
            return cls(directory, pid, None, wrapper)

    @classmethod
    async def adopt(cls, directory: Path) -> Self | None:
        """The program that runs in `directory`, whoever started it; None where none does.

        Raises StartFailed where one runs that cannot be told apart from others.
        """
        deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
        while _is_locked(directory / "lock"):
            with contextlib.suppress(OSError, ValueError):
                pid = int((directory / "pid").read_text())
                pidfd = os.pidfd_open(pid)
                if (directory / "exit").exists() or not _runs_in(pid, directory):
                    os.close(pidfd)
                else:
                    return cls(directory, pid, pidfd)
            if asyncio.get_running_loop().time() > deadline:
                raise StartFailed(f"A process runs in {directory}, but its id is not known.")
            await asyncio.sleep(_POLL_SECONDS)  # it is just being started, or has just ended
        return None

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._pidfd is not None and not _is_readable(self._pidfd)

    def kill(self) -> None:
        """Ends it with SIGKILL, where it has not ended."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def ended(self) -> ExitStatus | None:
        """Waits until the program has ended; answers how, or None where its wrapper was killed too."""
        if self._pidfd is not None:
            await _readable(self._pidfd)
        if self._wrapper is not None:
            await asyncio.to_thread(self._wrapper.wait)
        await asyncio.to_thread(_wait_unlocked, self.directory / "lock")
        return read_exit(self.directory)

    async def end(self) -> None:
        """Ends it with SIGKILL, waits until it has ended, and lets go of it."""
        self.kill()
        await self.ended()
        self.close()

    def close(self) -> None:
        """Lets go of the process; it goes on where it runs."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process, user and system (proc_pid_stat(5)); 0 for one that has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def read_exit(directory: Path) -> ExitStatus | None:
    """How the last program of a directory ended, where that is known."""
    with contextlib.suppress(OSError, ValueError):
        return ExitStatus(int((directory / "exit").read_text()))
    return None


def read_log(directory: Path) -> str:
    """The end of what the last program of a directory wrote."""
    with contextlib.suppress(OSError), (directory / "qemu.log").open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        return tail(log.read())
    return ""


def _is_readable(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


async def _readable(descriptor: int) -> None:
    """Waits until a file descriptor can be read from, which a pidfd can be when its process has ended."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    ours = os.dup(descriptor)  # others may wait for it too, or close it
    loop.add_reader(ours, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(ours)
        os.close(ours)


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _wait_unlocked(path: Path) -> None:
    """Waits, not for long, until the wrapper has noted how the program ended."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _is_locked(path) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _runs_in(pid: int, directory: Path) -> bool:
    """Whether a process has this working directory, which tells it from one that got its id later."""
    return directory.samefile(f"/proc/{pid}/cwd")
