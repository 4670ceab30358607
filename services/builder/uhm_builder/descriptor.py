"""A disk glued together of stretches of files: a VMDK descriptor, a partition table, and nothing copied.

The descriptor is of VMware's Virtual Disk Format 1.1, `twoGbMaxExtentFlat`. QEMU's block layer, qemu-img and libguestfs
read it. Paths in it are relative to it, so whatever holds all the files can be moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_builder.gpt import ALIGNMENT, SECTOR, build_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uhm_builder.gpt import Partition

__all__ = ["DESCRIPTOR", "Extent", "Filled", "write_composite"]

DESCRIPTOR = "disk.vmdk"
"""Name of the descriptor in the directory that `write_composite` writes to."""

_EXTENT_SECTORS = (2 << 30) // SECTOR - ALIGNMENT // SECTOR
_HEAD, _TAIL, _ROOM = "head.raw", "tail.raw", "room.raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A stretch of a file that is one of the disk; numbers are bytes, whole sectors."""

    path: str
    """Relative to the descriptor."""
    size: int
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A partition and what lies in it; the extents add up to its size."""

    partition: Partition
    extents: tuple[Extent, ...]


def write_composite(
    directory: Path, partitions: Sequence[Filled], *, seed: str, boot_code: bytes, size: int = 0
) -> int:
    """Write a disk's descriptor and its two ends into a directory; answers the disk's virtual size in bytes.

    The table's GUIDs derive from `seed`. Where `size` is more than the partitions need, the rest is room behind the
    last one. Raises InvalidArgument for what a partition table cannot hold.
    """
    table = build_table([each.partition for each in partitions], seed=seed, boot_code=boot_code, size=size)
    (directory / _HEAD).write_bytes(table.head)
    (directory / _TAIL).write_bytes(table.tail)
    extents = [Extent(path=_HEAD, size=len(table.head))]
    for each in partitions:
        extents += each.extents
    extents.append(Extent(path=_TAIL, size=len(table.tail)))
    if room := table.size - sum(extent.size for extent in extents):
        with (directory / _ROOM).open("wb") as hole:
            hole.truncate(room)
        extents.insert(-1, Extent(path=_ROOM, size=room))
    (directory / DESCRIPTOR).write_text(_descriptor(extents, table.size))
    return table.size


def _descriptor(extents: Sequence[Extent], size: int) -> str:
    """The descriptor's text. QEMU drops extents of type ZERO, so every byte is backed by a file."""
    cylinders = min(size // SECTOR // (16 * 63), 16383)
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=fffffffe",
        "parentCID=ffffffff",
        'createType="twoGbMaxExtentFlat"',
        "",
        "# Extent description",
        *(line for extent in extents for line in _extent_lines(extent)),
        "",
        "# The Disk Data Base",
        "#DDB",
        'ddb.virtualHWVersion = "4"',
        f'ddb.geometry.cylinders = "{cylinders}"',
        'ddb.geometry.heads = "16"',
        'ddb.geometry.sectors = "63"',
        'ddb.adapterType = "ide"',
        "",
    ]
    return "\n".join(lines)


def _extent_lines(extent: Extent) -> Iterator[str]:
    """Name a stretch, in pieces below 2 GiB, the most that an extent of this type may have."""
    first, sectors = extent.offset // SECTOR, extent.size // SECTOR
    for done in range(0, sectors, _EXTENT_SECTORS):
        yield f'RW {min(_EXTENT_SECTORS, sectors - done)} FLAT "{extent.path}" {first + done}'
