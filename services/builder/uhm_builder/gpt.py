"""Writing a GUID partition table: the first and the last mebibyte of a disk.

Done here because partitioning through an appliance costs seconds, and because composing a disk must not touch the
partitions' content: the table is all of a disk that is its own.

Specification: UEFI 2.10, chapter 5; the legacy-boot attribute (bit 2) is what syslinux's gptmbr.bin looks for.
All numbers on the disk are little endian; a sector has 512 bytes.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from uhm_common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALIGNMENT", "MAX_PARTITIONS", "SECTOR", "Partition", "PartitionType", "Table", "build_table"]

SECTOR = 512
ALIGNMENT = 1 << 20
"""Bytes that partitions start at a multiple of, and are a multiple of in size. Also the size of head and tail."""
MAX_PARTITIONS = 256

_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRIES_BYTES = MAX_PARTITIONS * _ENTRY.size
_ENTRIES_SECTORS = _ENTRIES_BYTES // SECTOR
_NAMESPACE = uuid.UUID("6ad4f7f8-6f0d-5d5c-a6f1-0d4cf2f0a5d1")
_LEGACY_BOOT = 1 << 2
_BOOT_CODE_BYTES = 440


class PartitionType(Enum):
    """Partition type GUIDs."""

    EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition to be."""

    label: str
    """At most 36 characters; the guest's kernel shows it as PARTNAME."""
    size: int
    """Bytes, a multiple of ALIGNMENT."""
    type: PartitionType = PartitionType.LINUX
    legacy_boot: bool = False
    """Whether a BIOS boots from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The two ends of a disk; the partitions lie between them without gaps, in order."""

    head: bytes
    tail: bytes
    size: int
    """Of the whole disk, in bytes."""


def build_table(partitions: Sequence[Partition], *, seed: str, boot_code: bytes = b"", size: int = 0) -> Table:
    """Build the table for a disk with these partitions, one after the other, and of at least `size` bytes.

    All GUIDs are derived from `seed`: the same disk gets the same ones, two disks never share one.
    `boot_code` goes into the protective MBR (at most 440 bytes). Raises InvalidArgument for what a table cannot hold.
    """
    _check(partitions, boot_code)
    size = max(size + -size % ALIGNMENT, 2 * ALIGNMENT + sum(partition.size for partition in partitions))
    last = size // SECTOR - 1
    entries = _entries(partitions, seed)
    header = _HeaderFields(last=last, guid=_guid(seed, "disk"), entries_crc=zlib.crc32(entries))
    primary = header.pack(here=1, other=last, entries_at=2)
    backup = header.pack(here=last, other=1, entries_at=last - _ENTRIES_SECTORS)
    head = _protective_mbr(last, boot_code) + primary + entries
    tail = entries + backup
    return Table(head=head.ljust(ALIGNMENT, b"\0"), tail=tail.rjust(ALIGNMENT, b"\0"), size=size)


def _check(partitions: Sequence[Partition], boot_code: bytes) -> None:
    if len(partitions) > MAX_PARTITIONS:
        raise InvalidArgument(f"{len(partitions)} partitions are more than the {MAX_PARTITIONS} a disk can have.")
    for partition in partitions:
        if partition.size <= 0 or partition.size % ALIGNMENT:
            raise InvalidArgument(f"Partition {partition.label}: {partition.size} bytes are not whole mebibytes.")
        if len(partition.label) > 36:
            raise InvalidArgument(f"Partition label {partition.label!r} is longer than 36 characters.")
    if len(boot_code) > _BOOT_CODE_BYTES:
        raise InvalidArgument(
            f"Boot code of {len(boot_code)} bytes does not fit into the {_BOOT_CODE_BYTES} of an MBR."
        )


def _guid(seed: str, what: str) -> bytes:
    return uuid.uuid5(_NAMESPACE, f"{seed}/{what}").bytes_le


def _entries(partitions: Sequence[Partition], seed: str) -> bytes:
    packed = bytearray()
    start = ALIGNMENT // SECTOR
    for number, partition in enumerate(partitions, start=1):
        end = start + partition.size // SECTOR
        attributes = _LEGACY_BOOT if partition.legacy_boot else 0
        packed += _ENTRY.pack(
            partition.type.value.bytes_le,
            _guid(seed, f"partition {number}"),
            start,
            end - 1,
            attributes,
            partition.label.encode("utf-16-le"),
        )
        start = end
    return bytes(packed.ljust(_ENTRIES_BYTES, b"\0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeaderFields:
    """What the primary and the backup header have in common."""

    last: int
    guid: bytes
    entries_crc: int

    def pack(self, *, here: int, other: int, entries_at: int) -> bytes:
        """Pack one header with its checksum, as a sector. Positions are sector numbers."""
        first_usable = 2 + _ENTRIES_SECTORS
        last_usable = self.last - _ENTRIES_SECTORS - 1

        def packed(checksum: int) -> bytes:
            return _HEADER.pack(
                b"EFI PART", 0x10000, _HEADER.size, checksum, 0, here, other, first_usable, last_usable,
                self.guid, entries_at, MAX_PARTITIONS, _ENTRY.size, self.entries_crc,
            )  # fmt: skip

        return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _protective_mbr(last: int, boot_code: bytes) -> bytes:
    """An MBR whose one partition, of type 0xEE, covers the disk, so that tools that know no GPT keep off."""
    covering = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    return boot_code.ljust(446, b"\0") + covering.ljust(64, b"\0") + b"\x55\xaa"
