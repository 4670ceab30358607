"""What an export can be asked for, and what of it goes together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from uhm_builder.errors import InvalidExport

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMPRESSIONS", "SUFFIXES", "Compression", "DiskFormat", "ExportOptions", "export_options"]

MAX_SIZE = 2040 << 30
"""The most that a VHD can have, which is the least of all formats."""

Choice = TypeVar("Choice", bound=StrEnum)


class DiskFormat(StrEnum):
    """The formats of disks, as qemu-img calls them, and the appliance of virtual machines around one of them."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"
    VHDX = "vhdx"
    VPC = "vpc"
    """Virtual PC's, known as VHD."""
    VDI = "vdi"
    OVA = "ova"


class Compression(StrEnum):
    """How the content is compressed."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"


SUFFIXES: Mapping[DiskFormat, str] = {each: each.value for each in DiskFormat} | {DiskFormat.VPC: "vhd"}
"""What file names end with."""

COMPRESSIONS: Mapping[DiskFormat, tuple[Compression, ...]] = {
    **dict.fromkeys(DiskFormat, (Compression.NONE,)),
    DiskFormat.QCOW2: (Compression.NONE, Compression.ZLIB, Compression.ZSTD),
    DiskFormat.VMDK: (Compression.NONE, Compression.ZLIB),
    DiskFormat.OVA: (Compression.ZLIB,),
}
"""What each format can, its default first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How an image becomes a disk. Raises InvalidExport for what does not go together."""

    format: DiskFormat = DiskFormat.QCOW2
    compression: Compression | None = None
    """None: the format's default."""
    seal: bool = False
    """Whether dm-verity guards all that a machine only reads."""
    verify: bool = False
    """Whether libguestfs looks at the disk before it is handed out."""
    size_bytes: int = 0
    """Virtual; 0: what the image needs."""

    def __post_init__(self) -> None:
        can = COMPRESSIONS[self.format]
        if self.compression is None:
            object.__setattr__(self, "compression", can[0])
        elif self.compression not in can:
            raise InvalidExport(
                f"A disk in format {self.format} cannot be compressed with {self.compression}.",
                hint=f"It can be {' or '.join(can)}; qcow2 can all of {', '.join(Compression)}.",
            )
        if not 0 <= self.size_bytes <= MAX_SIZE:
            raise InvalidExport(
                f"A disk of {self.size_bytes} bytes cannot be made.", hint=f"At most {MAX_SIZE >> 30} GiB."
            )


def export_options(*, format: str, compression: str, seal: bool, verify: bool, size_bytes: int) -> ExportOptions:  # noqa: A002
    """From what a request says; empty words stand for defaults. Raises InvalidExport."""
    return ExportOptions(
        format=_chosen(DiskFormat, format or DiskFormat.QCOW2, what="format"),
        compression=_chosen(Compression, compression, what="compression") if compression else None,
        seal=seal,
        verify=verify,
        size_bytes=size_bytes,
    )


def _chosen(kind: type[Choice], word: str, *, what: str) -> Choice:
    try:
        return kind(word)
    except ValueError:
        raise InvalidExport(f"{word!r} is no {what} of a disk.", hint=f"Choose one of {', '.join(kind)}.") from None
