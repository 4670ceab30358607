import json
from unittest.mock import Mock

import pytest

from tests.unit.machines.stand_ins import BOOT, DIGEST, DISK, SHAPE, StandInRunning
from uhm_machines.disks import export_name
from uhm_machines.errors import StartFailed
from uhm_machines.exports import ImageExports
from uhm_machines.files import MachineFiles
from uhm_machines.qemu.blocks import blank
from uhm_machines.qemu.process import DetachedProcess
from uhm_machines.starts import spawner as spawners
from uhm_machines.starts.spawner import Spawner, ended_on_error


@pytest.fixture
def files(tmp_path):
    made = MachineFiles(tmp_path / "machines" / "m")
    made.make()
    return made


@pytest.fixture
def spawner(tmp_path):
    qemu = tmp_path / "qemu"
    qemu.write_text('#!/bin/sh\necho "$@" >argv\necho "broken" >&2\nexit 3\n')
    qemu.chmod(0o700)
    return Spawner(qemu=str(qemu), exports=ImageExports(tmp_path / "exports", artifacts=Mock()))


async def test_an_emulator_that_does_not_come_up(spawner, files):
    with pytest.raises(StartFailed, match="QEMU ended with exit code 3: broken"):
        await spawner.spawn(files, boot=BOOT, hardware=SHAPE.hardware, blocks=blank(1 << 20), template=True)
    assert await DetachedProcess.adopt(files.directory) is None
    assert "uhm.template" in (files.directory / "argv").read_text()


async def test_an_emulator_whose_monitor_says_nothing_is_ended(spawner, files, tmp_path, monkeypatch):
    monkeypatch.setattr(spawners, "_UP_SECONDS", 0.05)
    (tmp_path / "qemu").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(StartFailed, match="QEMU was ended by signal 9"):
        await spawner.spawn(files, boot=BOOT, hardware=SHAPE.hardware, blocks=blank(1 << 20))
    assert await DetachedProcess.adopt(files.directory) is None


@pytest.mark.parametrize(("cloned", "names"), [(False, ["image", "top"]), (True, ["image", "below", "top"])])
def test_the_nodes_of_a_machines_disk(spawner, files, cloned, names):
    if cloned:
        files.below.touch()
    nodes = spawner.disk_nodes(files, DISK, name="top")
    assert [node["node-name"] for node in nodes] == names
    assert nodes[0]["server"]["path"] == "../../exports/nbd.sock"
    assert nodes[0]["export"] == export_name(DIGEST)
    json.dumps(nodes)


def test_a_disk_that_a_machine_has_is_left_alone(spawner, files):
    files.disk.write_bytes(b"precious")
    spawner.make_disk(files, DISK)
    assert files.disk.read_bytes() == b"precious"


async def test_what_raises_ends_the_emulator(files):
    running = StandInRunning(files)
    async with ended_on_error(running):
        pass
    assert not running.has_ended
    with pytest.raises(ZeroDivisionError):
        async with ended_on_error(running):
            raise ZeroDivisionError
    assert running.has_ended
