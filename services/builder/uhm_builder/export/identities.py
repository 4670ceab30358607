"""What some formats put into a file by chance or by the clock, replaced by what derives from the disk's seed.

Without it no two exports of an image would be the same bytes. A qcow2 and a raw disk have nothing of this kind.

    vmdk   the content id in the embedded descriptor (VMware's Virtual Disk Format 1.1)
    vdi    the UUIDs of the image and of its last change, in the header (VirtualBox, VDICore.h)
    vpc    time stamp and UUID of the footer, which a dynamic disk also begins with (Virtual Hard Disk Image Format 1.0)
    vhdx   the GUIDs of the two headers and of the virtual disk, the log (MS-VHDX)
"""

from __future__ import annotations

import re
import struct
import uuid
from typing import IO, TYPE_CHECKING

from uhm_builder.export.options import DiskFormat
from uhm_common.errors import InternalError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["guid", "set_identity"]

_NAMESPACE = uuid.UUID("51d58a8c-0c2f-5f3e-9a86-3c7d0b1a9e44")


def guid(seed: str, what: str) -> uuid.UUID:
    """A GUID of a disk, for what it is to name."""
    return uuid.uuid5(_NAMESPACE, f"{seed}/{what}")


def set_identity(path: Path, disk_format: DiskFormat, *, seed: str) -> None:
    """Replace the identity of a finished disk in place. Raises InternalError where it is not of the expected form."""
    set_one = {
        DiskFormat.VMDK: _set_vmdk,
        DiskFormat.VDI: _set_vdi,
        DiskFormat.VPC: _set_vpc,
        DiskFormat.VHDX: _set_vhdx,
    }.get(disk_format)
    if set_one is not None:
        with path.open("r+b") as file:
            set_one(file, seed)


def _set_vmdk(file: IO[bytes], seed: str) -> None:
    """The descriptor begins at the sector that the header's field at 28 names and is as long as that at 36 says.

    QEMU writes the number that is drawn by lot without leading zeros, and fills the descriptor up with zero bytes.
    """
    magic, start, sectors = struct.unpack("<4s24xQQ", _read(file, 0, 44))
    _expect(magic == b"KDMV", "vmdk")
    descriptor = _read(file, start * 512, sectors * 512)
    content_id = guid(seed, "vmdk").hex[:8].encode()
    text = descriptor.rstrip(b"\0")
    changed, times = re.subn(rb"^CID=[0-9a-f]{1,8}$", b"CID=" + content_id, text, count=1, flags=re.MULTILINE)
    _expect(times == 1 and len(changed) <= len(descriptor), "vmdk")
    _write(file, start * 512, changed.ljust(len(descriptor), b"\0"))


def _set_vdi(file: IO[bytes], seed: str) -> None:
    _expect(_read(file, 64, 4) == struct.pack("<I", 0xBEDA107F), "vdi")
    _write(file, 392, guid(seed, "vdi image").bytes_le + guid(seed, "vdi change").bytes_le)


def _set_vpc(file: IO[bytes], seed: str) -> None:
    """The checksum is the complement of the sum of the footer's bytes, its own taken as zero."""
    end = file.seek(0, 2) - 512
    footer = bytearray(_read(file, end, 512))
    _expect(footer[:8] == b"conectix", "vpc")
    is_first_too = _read(file, 0, 8) == b"conectix"
    footer[24:28] = bytes(4)
    footer[68:84] = guid(seed, "vpc").bytes
    footer[64:68] = bytes(4)
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    for offset in (0, end) if is_first_too else (end,):
        _write(file, offset, bytes(footer))


_VHDX_HEADERS = (64 << 10, 128 << 10)
_VHDX_REGIONS = 192 << 10
_VHDX_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_VHDX_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_VHDX_DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le


def _set_vhdx(file: IO[bytes], seed: str) -> None:
    """Of the two headers the one with the greater sequence number counts; qemu-img lets them begin anywhere.

    One without a log GUID says that there is nothing to replay, so that the log can be empty: qemu-img has written out
    what it logged before it ends.
    """
    headers = [_VHDX_HEADER.unpack(_read(file, offset, _VHDX_HEADER.size)) for offset in _VHDX_HEADERS]
    _expect(all(header[0] == b"head" for header in headers), "vhdx")
    order = sorted(header[2] for header in headers)
    identity = (guid(seed, "vhdx file").bytes_le, guid(seed, "vhdx data").bytes_le, bytes(16))
    for offset, (magic, _, sequence, _, _, _, *rest) in zip(_VHDX_HEADERS, headers, strict=True):
        fields = (order.index(sequence) + 1, *identity, *rest)
        checksum = _crc32c(_VHDX_HEADER.pack(magic, 0, *fields).ljust(4096, b"\0"))
        _write(file, offset, _VHDX_HEADER.pack(magic, checksum, *fields).ljust(4096, b"\0"))
        log_length, log_offset = rest[2:]
        _write(file, log_offset, bytes(log_length))
    metadata = _vhdx_entry(file, _VHDX_REGIONS, header=16, entry="<16sQ8x", key=_VHDX_METADATA)
    disk_id = _vhdx_entry(file, metadata, header=32, entry="<16sI12x", key=_VHDX_DISK_ID)
    _write(file, metadata + disk_id, guid(seed, "vhdx disk").bytes_le)


def _vhdx_entry(file: IO[bytes], table: int, *, header: int, entry: str, key: bytes) -> int:
    """The offset that a table of regions or of metadata gives for a GUID."""
    entries = _read(file, table + header, 64 * struct.calcsize(entry))
    found = [offset for name, offset in struct.iter_unpack(entry, entries) if name == key]
    _expect(len(found) == 1, "vhdx")
    return int(found[0])


def _crc32c(data: bytes) -> int:
    """Castagnoli's CRC, which zlib does not have; for the 4 KiB of a header."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _write(file: IO[bytes], offset: int, data: bytes) -> None:
    file.seek(offset)
    file.write(data)


def _expect(holds: bool, disk_format: str) -> None:
    if not holds:
        raise InternalError(f"qemu-img has written a {disk_format} disk of a form that is not known here.")
