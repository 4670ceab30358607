import json

import pytest

from uhm_common.artifacts import ArtifactStore
from uhm_common.errors import NotFound
from uhm_common.process import run
from uhm_machines.disks import create_overlay, read_image_disk

DIGEST, BASE = "sha256:" + "d" * 64, "sha256:" + "b" * 64


@pytest.fixture
def store(tmp_path):
    made = ArtifactStore(tmp_path)
    for directory, name, record in (
        (made.disk(DIGEST), "disk.json", {"digest": DIGEST, "base": BASE, "layers": [], "size": 1 << 30}),
        (
            made.base(BASE),
            "base.json",
            {"digest": BASE, "command_line": "rdinit=/init", "kernel_version": "6.1 minimal", "more": 1},
        ),
    ):
        directory.mkdir(parents=True)
        (directory / name).write_text(json.dumps(record))
    return made


def test_what_is_recorded_of_a_disk(store):
    disk = read_image_disk(store, DIGEST)
    assert (disk.size, disk.boot.command_line, disk.boot.kernel_version) == (1 << 30, "rdinit=/init", "6.1 minimal")
    assert disk.boot.kernel == store.base(BASE) / "vmlinux"


@pytest.mark.parametrize("missing", ["disk", "base"])
def test_a_record_that_is_gone(store, missing):
    path = store.disk(DIGEST) / "disk.json" if missing == "disk" else store.base(BASE) / "base.json"
    path.unlink()
    with pytest.raises(NotFound, match=f"{missing}.json"):
        read_image_disk(store, DIGEST)


@pytest.mark.integration
async def test_an_overlay_names_what_lies_below(store, tmp_path):
    path = tmp_path / "disk.qcow2"
    await create_overlay(path, read_image_disk(store, DIGEST), socket="../nbd.sock")
    told = json.loads(run(["qemu-img", "info", "--output=json", path], timeout=30).stdout)
    assert told["virtual-size"] == 1 << 30
    assert told["backing-filename"] == f"nbd+unix:///{'d' * 64}?socket=../nbd.sock"
    assert [entry.name for entry in tmp_path.glob("disk.*")] == ["disk.qcow2"]
