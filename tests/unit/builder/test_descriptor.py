"""Disks glued together of stretches of files, read back by qemu-img."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from uhm_builder.descriptor import DESCRIPTOR, Extent, Filled, write_composite
from uhm_builder.gpt import Partition

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_stretches_of_files_follow_each_other_and_room_comes_last(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * MIB)
    (tmp_path / "b").write_bytes(b"b" * 512 + b"B" * 512)
    spliced = (
        Extent(path="a", size=MIB // 2),
        Extent(path="b", size=512, offset=512),
        Extent(path="a", size=MIB // 2 - 512, offset=MIB // 2 + 512),
    )
    partition = Filled(partition=Partition(label="p", size=MIB), extents=spliced)

    size = write_composite(tmp_path, [partition], seed="s", boot_code=b"", size=5 * MIB + 1)

    raw = tmp_path / "raw"
    argv = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp_path / DESCRIPTOR, raw]
    subprocess.run(argv, check=True, capture_output=True)
    disk = raw.read_bytes()
    assert size == len(disk) == 6 * MIB, "whole mebibytes"
    assert disk[MIB : 2 * MIB] == b"a" * (MIB // 2) + b"B" * 512 + b"a" * (MIB // 2 - 512)
    assert not any(disk[2 * MIB : 5 * MIB])
    assert disk[-512:-504] == b"EFI PART", "the table's copy is at the very end"


def test_without_a_size_nothing_is_added(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(MIB))
    partition = Filled(partition=Partition(label="p", size=MIB), extents=(Extent(path="a", size=MIB),))
    assert write_composite(tmp_path, [partition], seed="s", boot_code=b"") == 3 * MIB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", DESCRIPTOR, "head.raw", "tail.raw"]
