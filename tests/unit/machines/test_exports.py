"""The export daemon itself, with a disk that is one small file."""

import asyncio
import os
import signal

import pytest

from uhm_common.artifacts import ArtifactStore
from uhm_common.process import ProcessFailed, run
from uhm_machines.disks import export_name
from uhm_machines.errors import QmpFailed
from uhm_machines.exports import ImageExports

pytestmark = pytest.mark.integration

GOOD, OTHER, BROKEN = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def store(tmp_path):
    made = ArtifactStore(tmp_path / "artifacts")
    for digest in (GOOD, OTHER):
        disk = made.disk(digest)
        disk.mkdir(parents=True)
        (disk / "head.raw").write_bytes(bytes(1 << 20))
        (disk / "disk.vmdk").write_text(
            '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\n'
            'RW 2048 FLAT "head.raw" 0\nddb.adapterType = "ide"\n'
        )
    made.disk(BROKEN).mkdir(parents=True)
    (made.disk(BROKEN) / "disk.vmdk").write_text("nonsense")
    return made


@pytest.fixture
async def exports(tmp_path, store):
    made = ImageExports(tmp_path / "exports", artifacts=store)
    yield made
    await made.stop()


async def served(exports, digest):
    url = f"nbd+unix:///{export_name(digest)}?socket={exports.socket}"
    try:
        await asyncio.to_thread(run, ["qemu-img", "info", url], timeout=20)
    except ProcessFailed:
        return False
    return True


def daemon_pid(exports):
    return int((exports.socket.parent / "pid").read_text())


async def test_exports_come_and_go_with_their_users(exports):
    await exports.acquire(GOOD, machine_id="1")
    await exports.acquire(GOOD, machine_id="2")
    await exports.acquire(OTHER, machine_id="3")
    assert [await served(exports, digest) for digest in (GOOD, OTHER)] == [True, True]
    await exports.release(GOOD, machine_id="1")
    await exports.release(OTHER, machine_id="3")
    await exports.release(OTHER, machine_id="3")
    assert [await served(exports, digest) for digest in (GOOD, OTHER)] == [True, False]
    await exports.acquire(OTHER, machine_id="3")
    assert await served(exports, OTHER)


async def test_a_broken_disk_is_refused_and_harms_no_other(exports):
    await exports.acquire(GOOD, machine_id="1")
    pid = daemon_pid(exports)
    with pytest.raises(QmpFailed):
        await exports.acquire(BROKEN, machine_id="2")
    assert daemon_pid(exports) == pid
    exports._users[BROKEN] = {"3"}
    os.kill(pid, signal.SIGKILL)
    await exports.acquire(OTHER, machine_id="4")
    assert [await served(exports, digest) for digest in (GOOD, OTHER, BROKEN)] == [True, True, False]


async def test_a_daemon_that_dies_is_started_anew(exports):
    keeping = asyncio.create_task(exports.keep())
    await exports.acquire(GOOD, machine_id="1")
    for _ in range(3):
        pid = daemon_pid(exports)
        os.kill(pid, signal.SIGKILL)
        while daemon_pid(exports) == pid or not await served(exports, GOOD):  # noqa: ASYNC110 - a process is waited for
            await asyncio.sleep(0.02)
    keeping.cancel()


async def test_a_daemon_is_adopted_and_its_exports_put_right(exports, store):
    await exports.acquire(GOOD, machine_id="1")
    pid = daemon_pid(exports)
    next_run = ImageExports(exports.socket.parent, artifacts=store)
    await next_run.adopt({OTHER: {"2"}})
    assert daemon_pid(exports) == pid
    assert [await served(exports, digest) for digest in (GOOD, OTHER)] == [False, True]
    await next_run.stop()
    assert not await served(exports, OTHER)


async def test_a_hung_daemon_is_replaced(exports, monkeypatch):
    monkeypatch.setattr("uhm_machines.exports._QMP_SECONDS", 0.5)
    await exports.acquire(GOOD, machine_id="1")
    pid = daemon_pid(exports)
    os.kill(pid, signal.SIGSTOP)
    await exports.acquire(OTHER, machine_id="2")
    assert daemon_pid(exports) != pid
    assert [await served(exports, digest) for digest in (GOOD, OTHER)] == [True, True]


async def test_a_disk_in_use_takes_no_word_with_the_daemon(exports):
    await exports.acquire(GOOD, machine_id="1")
    pid = daemon_pid(exports)
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            await exports.acquire(GOOD, machine_id="2")
    finally:
        os.kill(pid, signal.SIGCONT)
    await exports.release(GOOD, machine_id="1")
    assert await served(exports, GOOD)
    await exports.release(GOOD, machine_id="2")
    assert not await served(exports, GOOD)


async def test_a_disk_that_is_being_given_up_is_exported_again(exports):
    await exports.acquire(GOOD, machine_id="1")
    await asyncio.gather(exports.release(GOOD, machine_id="1"), exports.acquire(GOOD, machine_id="2"))
    assert await served(exports, GOOD)


async def test_nothing_runs_where_nothing_is_used(exports):
    await exports.adopt({})
    await exports.release(GOOD, machine_id="1")
    await exports.stop()
    assert not exports.socket.exists()
