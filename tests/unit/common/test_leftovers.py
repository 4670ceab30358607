"""Processes that a killed program has left are found by a name of their own and ended."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from uhm_common.leftovers import end_processes, processes_of

WORD = f"leftover-test-{os.getpid()}"


def start(script: str) -> subprocess.Popen[bytes]:
    """Runs a script that says when it is ready; its command line holds the word."""
    argv = ["sh", "-c", f": {WORD}; {script}"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        output.readline()
    return process


def program() -> str:
    """What `sh` really is here."""
    return Path("/bin/sh").resolve().name


def test_processes_are_found_by_word_and_program():
    # `read` is the shell's own: a program would be a shell with the same words for a moment, before it is executed.
    with start("echo ready; read -r line; :") as process:
        assert processes_of(WORD, programs=(program(),)) == [process.pid]
        assert processes_of(WORD, programs=("dockerd",)) == []
        assert processes_of("leftover-test-of-another", programs=(program(),)) == []
        process.kill()


def test_a_process_that_obeys_is_ended_at_once():
    with start("echo ready; exec sleep 60") as process:
        started = time.monotonic()
        end_processes([process.pid], grace=30)
        assert process.wait() == -15
        assert time.monotonic() - started < 10


def test_a_process_that_ignores_it_is_killed():
    with start("trap '' TERM; echo ready; while :; do sleep 0.05; done") as process:
        end_processes([process.pid], grace=0.2)
        assert process.wait() == -9


def test_processes_that_have_ended_are_no_trouble():
    with start("echo ready") as process:
        process.wait()
        end_processes([process.pid], grace=1)
