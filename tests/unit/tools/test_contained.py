"""Nothing that a contained command has started outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
CONTAINED = [sys.executable, "-m", "tools.contained"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)], ids=["done", "failed", "killed"]
)
def test_exit_code_is_the_commands(script, code):
    assert subprocess.run([*CONTAINED, "sh", "-c", script], cwd=PROJECT, check=False).returncode == code


@pytest.mark.parametrize(
    "script",
    [
        "sleep 300 >/dev/null & echo $!",
        "sh -c 'sleep 300 >/dev/null & echo $!'",
        "setsid sleep 300 >/dev/null & echo $!",
        "setsid sh -c 'trap \"\" HUP INT; sleep 300 >/dev/null & echo $!'",
    ],
    ids=["job", "orphan", "session", "daemon"],
)
def test_what_is_left_running_is_ended(script):
    done = subprocess.run([*CONTAINED, "sh", "-c", script], cwd=PROJECT, check=True, capture_output=True, timeout=30)
    assert not alive(int(done.stdout))


def test_termination_reaches_the_command():
    command = [*CONTAINED, "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE) as contained:
        assert contained.stdout is not None
        assert contained.stdout.readline() == b"ready\n"
        contained.send_signal(signal.SIGTERM)
        assert contained.wait(30) == 5
