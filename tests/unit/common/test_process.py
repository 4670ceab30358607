"""The one way to run programs."""
# ruff: noqa: ASYNC110, ASYNC240 - what is tested runs in other processes

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from uhm_common.process import ProcessFailed, child_environment, describe_exit, run, run_interruptibly, tail


def test_output_and_input():
    done = run(["sh", "-c", "cat; echo err >&2"], timeout=10, stdin=b"hello")
    assert (done.stdout, done.stderr) == (b"hello", b"err\n")


def test_input_is_empty_unless_given():
    assert run(["cat"], timeout=10).stdout == b""


def test_words_are_not_split_or_expanded(tmp_path):
    assert run(["printf", "%s|", "a b", "$HOME", tmp_path], timeout=10).stdout == f"a b|$HOME|{tmp_path}|".encode()


def test_the_environment_is_small(monkeypatch, tmp_path):
    monkeypatch.setenv("UHM_DATABASE_URL", "postgresql://secret")

    lines = run(["env"], timeout=10, env={"EXTRA": "1"}, cwd=tmp_path).stdout.decode().splitlines()

    names = {line.partition("=")[0] for line in lines}
    assert "EXTRA=1" in lines
    assert "LC_ALL=C.UTF-8" in lines
    assert "UHM_DATABASE_URL" not in names
    assert names <= {"PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", "LC_ALL", "EXTRA", "PWD"}


def test_what_is_given_wins_over_what_is_passed_on(monkeypatch):
    monkeypatch.setenv("HOME", "/ours")
    assert child_environment({"HOME": "/theirs"})["HOME"] == "/theirs"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sh", "-c", "echo out; echo the cause >&2; exit 3"], "sh failed with exit code 3: the cause"),
        (["sh", "-c", "echo only out; exit 1"], "sh failed with exit code 1: only out"),
        (["sh", "-c", "kill -9 $$"], "sh failed with signal 9"),
        (["no-such-program-here"], "no-such-program-here is not installed."),
        (["/etc"], "/etc cannot be started: Permission denied."),
    ],
)
def test_failures_say_what_happened(argv, message):
    with pytest.raises(ProcessFailed) as caught:
        run(argv, timeout=10)
    assert caught.value.message.startswith(message)
    assert argv[0] in str(caught.value.fields["command"])


def test_a_working_directory_that_is_not_there(tmp_path):
    with pytest.raises(ProcessFailed, match="absent is not a directory"):
        run(["true"], timeout=10, cwd=tmp_path / "absent")


def test_what_takes_too_long_is_killed():
    with pytest.raises(ProcessFailed, match=r"sleep did not end within 0\.2 s and was killed"):
        run(["sleep", "60"], timeout=0.2)


def test_tail_and_exit():
    assert tail(b"\n".join(b"%d" % number for number in range(100)), lines=2) == "98\n99"
    assert tail(b"\xff") == "\N{REPLACEMENT CHARACTER}"
    assert describe_exit(-signal.SIGTERM) == "signal 15"
    assert describe_exit(2) == "exit code 2"


async def test_a_coroutine_that_is_cancelled_takes_the_program_along(tmp_path):
    started = tmp_path / "pid"
    running = asyncio.create_task(
        run_interruptibly(["sh", "-c", 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60', started], seconds=60)
    )
    while not started.exists():
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{started.read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("argv", "seconds", "message"),
    [
        (["sh", "-c", "echo the cause >&2; exit 3"], 10, "sh failed with exit code 3: the cause"),
        (["no-such-program-here"], 10, "no-such-program-here is not installed."),
        (["sleep", "60"], 0.2, "sleep did not end within 0.2 s and was killed."),
    ],
)
async def test_what_goes_wrong_is_told_to_a_coroutine_too(argv, seconds, message):
    with pytest.raises(ProcessFailed, match=message):
        await run_interruptibly(argv, seconds=seconds)


async def test_a_coroutine_gets_the_output():
    assert (await run_interruptibly(["echo", "x"], seconds=10)).stdout == b"x\n"
