import json

import pytest

from tests.unit.machines.stand_ins import BASE, DIGEST, recorded_artifacts
from uhm_common.errors import NotFound
from uhm_common.process import run
from uhm_machines.disks import create_overlay, read_image_disk
from uhm_machines.files import MachineFiles


@pytest.fixture
def store(tmp_path):
    return recorded_artifacts(tmp_path)


def test_what_is_recorded_of_a_disk(store):
    disk = read_image_disk(store, DIGEST)
    assert (disk.size, disk.boot.command_line, disk.boot.kernel_version) == (1 << 30, "rdinit=/init", "6.1 minimal")
    assert (disk.boot.base, disk.boot.kernel) == (BASE, store.base(BASE) / "vmlinux")


@pytest.mark.parametrize(("gib", "machine_gib"), [(1, 64), (64, 64), (65, 128), (300, 512)])
def test_disks_of_machines_have_few_sizes(tmp_path, gib, machine_gib):
    disk = read_image_disk(recorded_artifacts(tmp_path, size=gib << 30), DIGEST)
    assert disk.machine_size == machine_gib << 30


@pytest.mark.parametrize("missing", ["disk", "base"])
def test_a_record_that_is_gone(store, missing):
    path = store.disk(DIGEST) / "disk.json" if missing == "disk" else store.base(BASE) / "base.json"
    path.unlink()
    with pytest.raises(NotFound, match=f"{missing}.json"):
        read_image_disk(store, DIGEST)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("cloned", "below"), [(False, f"nbd+unix:///{'d' * 64}?socket=../nbd.sock"), (True, "below.qcow2")]
)
def test_an_overlay_names_what_lies_below(store, tmp_path, cloned, below):
    files = MachineFiles(tmp_path / "machine")
    files.make()
    if cloned:
        files.below.touch()
    create_overlay(files, read_image_disk(store, DIGEST), socket="../nbd.sock")
    files.below.unlink(missing_ok=True)  # qemu-img would look into it
    told = json.loads(run(["qemu-img", "info", "--output=json", files.disk], timeout=30).stdout)
    assert told["virtual-size"] == 64 << 30
    assert (told["backing-filename"], told["backing-filename-format"]) == (below, "qcow2" if cloned else "raw")
    assert [entry.name for entry in files.directory.iterdir()] == ["disk.qcow2"]
