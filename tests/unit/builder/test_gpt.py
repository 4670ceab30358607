"""The partition table, read back by the specification (UEFI 2.10, chapter 5), not by the code that wrote it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhm_builder.gpt import ALIGNMENT, MAX_PARTITIONS, SECTOR, Partition, PartitionType, Table, build_table
from uhm_common.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
BOOT = Partition(label="uhm-boot", size=64 * MIB, type=PartitionType.EFI_SYSTEM, legacy_boot=True)
ROOT = Partition(label="uhm-base", size=MIB)
HEADER = ("signature", "revision", "size", "crc", "zero", "here", "other", "first", "last", "guid", "entries_at",
          "count", "entry_size", "entries_crc")  # fmt: skip


def read_header(sector: bytes) -> dict[str, Any]:
    header = dict(zip(HEADER, struct.unpack_from("<8sIIIIQQQQ16sQIII", sector), strict=True))
    without_crc = sector[:16] + bytes(4) + sector[20 : header["size"]]
    assert header["crc"] == zlib.crc32(without_crc)
    assert header["signature"] == b"EFI PART"
    return header


def read_entries(raw: bytes) -> list[tuple[str, int, int, int]]:
    """Label, first sector, last sector and attributes of the entries in use."""
    return [
        (entry[5].decode("utf-16-le").rstrip("\0"), entry[2], entry[3], entry[4])
        for entry in struct.iter_unpack("<16s16sQQQ72s", raw)
        if entry[0] != bytes(16)
    ]


def image(table: Table) -> bytes:
    """The disk, with nothing in its partitions."""
    return table.head + bytes(table.size - len(table.head) - len(table.tail)) + table.tail


def test_both_headers_describe_the_same_disk() -> None:
    table = build_table([BOOT, ROOT], seed="a")
    assert (len(table.head), len(table.tail), table.size) == (MIB, MIB, 67 * MIB)
    last = table.size // SECTOR - 1
    primary, backup = read_header(table.head[SECTOR : 2 * SECTOR]), read_header(table.tail[-SECTOR:])
    assert (primary["here"], primary["other"], primary["entries_at"]) == (1, last, 2)
    assert (backup["here"], backup["other"], backup["entries_at"]) == (last, 1, last - 64)
    for field in ("first", "last", "guid", "count", "entry_size", "entries_crc"):
        assert primary[field] == backup[field]
    entries = table.head[2 * SECTOR : 66 * SECTOR]
    assert entries == table.tail[-65 * SECTOR : -SECTOR]
    assert zlib.crc32(entries) == primary["entries_crc"]


def test_partitions_follow_one_another_and_the_first_is_bootable() -> None:
    entries = read_entries(build_table([BOOT, ROOT], seed="a").head[2 * SECTOR : 66 * SECTOR])
    assert entries == [("uhm-boot", 2048, 2048 * 65 - 1, 4), ("uhm-base", 2048 * 65, 2048 * 66 - 1, 0)]


def test_the_mbr_protects_the_disk_and_boots() -> None:
    table = build_table([ROOT], seed="a", boot_code=b"\xeb\xfe")
    assert table.head[:2] == b"\xeb\xfe"
    kind, start, sectors = table.head[450], *struct.unpack_from("<II", table.head, 454)
    assert (kind, start, sectors) == (0xEE, 1, table.size // SECTOR - 1)
    assert table.head[510:512] == b"\x55\xaa"


def test_guids_depend_on_the_seed_only() -> None:
    assert build_table([BOOT], seed="a") == build_table([BOOT], seed="a")

    def guids(seed: str) -> set[bytes]:
        head = build_table([BOOT, ROOT], seed=seed).head
        return {head[SECTOR + 56 : SECTOR + 72], head[1040:1056], head[1040 + 128 : 1056 + 128]}

    assert len(guids("a") | guids("b")) == 6
    assert all(uuid.UUID(bytes_le=guid).variant == uuid.RFC_4122 for guid in guids("a"))


@pytest.mark.parametrize(
    ("partitions", "boot_code", "message"),
    [
        ([Partition(label="x", size=MIB + 512)], b"", "whole mebibytes"),
        ([Partition(label="x", size=0)], b"", "whole mebibytes"),
        ([Partition(label="x" * 37, size=MIB)], b"", "longer than 36"),
        ([Partition(label="x", size=MIB)] * (MAX_PARTITIONS + 1), b"", "257 partitions"),
        ([], bytes(441), "441 bytes"),
    ],
)
def test_what_a_table_cannot_hold_is_refused(partitions: list[Partition], boot_code: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        build_table(partitions, seed="a", boot_code=boot_code)


@given(sizes=st.lists(st.integers(min_value=1, max_value=1 << 20), min_size=1, max_size=MAX_PARTITIONS))
def test_any_partitions_lie_inside_the_disk_without_gaps(sizes: list[int]) -> None:
    table = build_table([Partition(label="p", size=size * MIB) for size in sizes], seed="a")
    header = read_header(table.head[SECTOR : 2 * SECTOR])
    position = ALIGNMENT // SECTOR
    for (_, first, last, _), size in zip(read_entries(table.head[1024 : 66 * SECTOR]), sizes, strict=True):
        assert (first, last - first + 1) == (position, size * MIB // SECTOR)
        position = last + 1
    assert header["first"] <= ALIGNMENT // SECTOR
    assert position - 1 <= header["last"]


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="no sfdisk")
def test_sfdisk_agrees(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(image(build_table([BOOT, ROOT], seed="a")))
    done = subprocess.run(["sfdisk", "--verify", str(disk)], capture_output=True, text=True, check=True)
    assert "No errors detected" in done.stdout
    assert done.stderr == ""
