"""The one way to run another program to its end: argument list, time limit, small environment, captured tail."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_common.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Completed", "ProcessFailed", "child_environment", "run", "tail"]

TAIL_LINES = 20
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
    shown = shlex.join(command)
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
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise ProcessFailed(f"{cwd} is not a directory.", command=shown) from error
        raise ProcessFailed(
            f"{command[0]} is not installed.", hint="`uhm doctor` says what is missing.", command=shown
        ) from error
    except OSError as error:
        raise ProcessFailed(f"{command[0]} cannot be started: {error.strerror}.", command=shown) from error
    except subprocess.TimeoutExpired as error:
        raise ProcessFailed(f"{command[0]} did not end within {timeout:g} s and was killed.", command=shown) from error
    if done.returncode != 0:
        raise ProcessFailed(
            f"{command[0]} failed with {describe_exit(done.returncode)}: {tail(done.stderr or done.stdout)}",
            command=shown,
        )
    return Completed(stdout=done.stdout, stderr=done.stderr)


def describe_exit(returncode: int) -> str:
    """`exit code 3` or `signal 9`, from the convention of `subprocess`."""
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
