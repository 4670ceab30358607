"""Making one self-contained file of a composed disk, with qemu-img.

It reads several stretches at once but writes them in order: out of order it would be a little faster, and the clusters
would lie as chance has it. Which variant of a format, and why:

    vmdk   monolithicSparse, which runs where it is; with zlib streamOptimized, which hypervisors import but do not run
    ova    streamOptimized, as OVF wants it
    vhdx   dynamic, in blocks of 1 MiB, which is what Microsoft recommends for ext4; Hyper-V's own would be 32 MiB
    vpc    fixed and a whole number of mebibytes, because that is the one VHD that Azure takes; Hyper-V has vhdx
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uhm_builder.export.identities import set_identity
from uhm_builder.export.options import Compression, DiskFormat
from uhm_builder.threads import in_thread
from uhm_common.process import DIES_WITH_US, run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from uhm_builder.export.portable import Portable

__all__ = ["convert", "inner_format"]

COROUTINES = 8
_SECONDS, _BYTES_PER_SECOND = 60.0, 5_000_000

_STREAM = ("-o", "subformat=streamOptimized,adapter_type=lsilogic")
_ARGUMENTS: Mapping[tuple[DiskFormat, Compression], tuple[str, ...]] = {
    (DiskFormat.QCOW2, Compression.ZLIB): ("-c",),
    (DiskFormat.QCOW2, Compression.ZSTD): ("-c", "-o", "compression_type=zstd"),
    (DiskFormat.VMDK, Compression.NONE): ("-o", "subformat=monolithicSparse,adapter_type=lsilogic"),
    (DiskFormat.VMDK, Compression.ZLIB): _STREAM,
    (DiskFormat.VHDX, Compression.NONE): ("-o", "subformat=dynamic,block_size=1M"),
    (DiskFormat.VPC, Compression.NONE): ("-o", "subformat=fixed,force_size=on"),
}


def inner_format(disk_format: DiskFormat) -> DiskFormat:
    """The format of the disk itself: that of an appliance is inside."""
    return DiskFormat.VMDK if disk_format is DiskFormat.OVA else disk_format


async def convert(disk: Portable, output: Path, *, disk_format: DiskFormat, compression: Compression) -> None:
    """Write the disk as one file. Its name is in a vmdk. Raises ProcessFailed; when cancelled nothing goes on."""
    argv = [*DIES_WITH_US, "qemu-img", "convert", "-f", "vmdk", "-O", disk_format, "-m", str(COROUTINES)]
    argv += [*_ARGUMENTS.get((disk_format, compression), ()), str(disk.descriptor), str(output)]
    content = sum(partition.size for partition in disk.partitions[:-1])
    await run_interruptibly(argv, seconds=_SECONDS + content / _BYTES_PER_SECOND)
    await in_thread(lambda: set_identity(output, disk_format, seed=disk.seed))
