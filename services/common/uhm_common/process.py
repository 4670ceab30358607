"""The one way to run another program to its end: argument list, time limit, small environment, captured tail."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_common.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["DIES_WITH_US", "Completed", "ProcessFailed", "child_environment", "run", "run_interruptibly", "tail"]

TAIL_LINES = 20
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""In front of a command: it is killed when the thread that started it ends, which must be the main one. util-linux."""
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR")


class ProcessFailed(InternalError):
    """A program ended with an error, could not be started or took too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a program that ended well has written."""

    stdout: bytes
    stderr: bytes


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that children get: a few variables of ours, and `extra`. Secrets in ours stay with us."""
    return (
        {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C.UTF-8"} | dict(extra or {})
    )


def tail(output: bytes, *, lines: int = TAIL_LINES) -> str:
    """The last lines of a program's output, as text."""
    return "\n".join(output.decode(errors="replace").strip().splitlines()[-lines:])


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Runs a program to its end. It blocks: call it through `asyncio.to_thread` from a coroutine.

    `timeout` is in seconds; past it the program is killed. Raises ProcessFailed with the tail of what it wrote.
    """
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env=child_environment(env),
            cwd=cwd,
            check=False,
        )
    except OSError as error:
        raise _not_started(command, error, cwd=cwd) from error
    except subprocess.TimeoutExpired as error:
        raise _too_slow(command, timeout) from error
    return _ended_well(command, done.returncode, Completed(stdout=done.stdout, stderr=done.stderr))


async def run_interruptibly(
    argv: Sequence[str | Path], *, seconds: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Completed:
    """`run` for coroutines, at most `seconds` long. When it is cancelled the program is killed, and gone."""
    command = [str(word) for word in argv]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(env),
            cwd=cwd,
        )
    except OSError as error:
        raise _not_started(command, error, cwd=cwd) from error
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await process.communicate()
    except TimeoutError as error:
        raise _too_slow(command, seconds) from error
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    assert process.returncode is not None
    return _ended_well(command, process.returncode, Completed(stdout=stdout, stderr=stderr))


def _not_started(command: Sequence[str], error: OSError, *, cwd: Path | None) -> ProcessFailed:
    shown = shlex.join(command)
    if not isinstance(error, FileNotFoundError):
        return ProcessFailed(f"{command[0]} cannot be started: {error.strerror}.", command=shown)
    if cwd is not None and not cwd.is_dir():
        return ProcessFailed(f"{cwd} is not a directory.", command=shown)
    return ProcessFailed(f"{command[0]} is not installed.", hint="`uhm doctor` says what is missing.", command=shown)


def _too_slow(command: Sequence[str], timeout: float) -> ProcessFailed:
    return ProcessFailed(f"{command[0]} did not end within {timeout:g} s and was killed.", command=shlex.join(command))


def _ended_well(command: Sequence[str], returncode: int, completed: Completed) -> Completed:
    if returncode != 0:
        said = tail(completed.stderr or completed.stdout)
        raise ProcessFailed(
            f"{command[0]} failed with {describe_exit(returncode)}: {said}", command=shlex.join(command)
        )
    return completed


def describe_exit(returncode: int) -> str:
    """`exit code 3` or `signal 9`, from the convention of `subprocess`."""
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
