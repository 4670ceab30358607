import asyncio
import os
import signal

import pytest

from uhm_machines.errors import StartFailed
from uhm_machines.qemu.process import DetachedProcess, ExitStatus, read_exit, read_log


@pytest.mark.parametrize(("script", "number"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
async def test_how_it_ended_is_noted(tmp_path, script, number):
    process = await DetachedProcess.spawn(tmp_path, ["sh", "-c", f"echo said >&2; {script}"])
    assert await process.ended() == ExitStatus(number) == read_exit(tmp_path)
    assert "said" in read_log(tmp_path)
    process.close()
    assert await DetachedProcess.adopt(tmp_path) is None


async def test_it_is_found_again_and_not_started_twice(tmp_path):
    first = await DetachedProcess.spawn(tmp_path, ["sleep", "60"])
    with pytest.raises(StartFailed, match="runs already"):
        await DetachedProcess.spawn(tmp_path, ["sleep", "60"])
    second = await DetachedProcess.adopt(tmp_path)
    assert second is not None
    assert second.pid == first.pid
    assert os.getsid(first.pid) != os.getsid(0)
    second.kill()
    assert [await first.ended(), await second.ended()] == [ExitStatus(137)] * 2
    first.close()
    second.close()


async def test_a_process_id_of_someone_else_is_not_taken(tmp_path):
    directory = tmp_path / "machine"
    directory.mkdir()
    (directory / "pid").write_text(str(os.getpid()))
    assert await DetachedProcess.adopt(directory) is None


async def test_the_lock_says_who_lives_when_the_wrapper_is_gone(tmp_path):
    process = await DetachedProcess.spawn(tmp_path, ["sleep", "60"])
    wrapper = process._wrapper
    assert wrapper is not None
    wrapper.kill()
    wrapper.wait()
    again = await DetachedProcess.adopt(tmp_path)
    assert again is not None
    again.kill()
    assert await again.ended() is None
    again.close()
    process.close()


async def test_waiting_can_be_given_up(tmp_path):
    process = await DetachedProcess.spawn(tmp_path, ["sleep", "60"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.ended(), 0.05)
    process.kill()
    assert await process.ended() == ExitStatus(137)
    process.close()


async def test_a_program_that_is_not_there(tmp_path):
    process = await DetachedProcess.spawn(tmp_path, ["/no/such/program"])
    assert await process.ended() == ExitStatus(127)
    assert "not found" in read_log(tmp_path)
    process.close()


def test_exit_status_is_told():
    assert str(ExitStatus(1)) == "ended with exit code 1"
    assert str(ExitStatus(128 + signal.SIGSEGV)) == "was ended by signal 11 (SIGSEGV)"
