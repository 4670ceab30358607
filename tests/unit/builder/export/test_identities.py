"""What chance puts into disks, replaced."""

from __future__ import annotations

import struct

import pytest

from uhm_builder.export.identities import set_identity
from uhm_builder.export.options import DiskFormat
from uhm_common.errors import InternalError

SECTORS = 20


def vmdk(path, content_id: str):
    descriptor = f"# Disk DescriptorFile\nversion=1\nCID={content_id}\nparentCID=ffffffff\n".encode()
    header = struct.pack("<4s24xQQ", b"KDMV", 1, SECTORS).ljust(512, b"\0")
    path.write_bytes(header + descriptor.ljust(SECTORS * 512, b"\0") + b"grain")
    return path


@pytest.mark.parametrize("content_id", ["deadbeef", "eadbeef", "f", "fffffffe"])
def test_a_vmdks_number_is_replaced_however_many_digits_it_has(tmp_path, content_id):
    usual = vmdk(tmp_path / "usual", "12345678")
    disk = vmdk(tmp_path / "disk", content_id)

    for path in (usual, disk):
        set_identity(path, DiskFormat.VMDK, seed="sha256:1")

    assert disk.read_bytes() == usual.read_bytes()
    assert b"parentCID=ffffffff\n\0" in disk.read_bytes()


def test_other_disks_get_other_numbers(tmp_path):
    one, two = vmdk(tmp_path / "one", "1"), vmdk(tmp_path / "two", "1")

    set_identity(one, DiskFormat.VMDK, seed="sha256:1")
    set_identity(two, DiskFormat.VMDK, seed="sha256:2")

    assert one.read_bytes() != two.read_bytes()


@pytest.mark.parametrize("content_id", ["", "123456789", "G"])
def test_a_form_that_is_not_known_is_refused(tmp_path, content_id):
    with pytest.raises(InternalError, match="form that is not known"):
        set_identity(vmdk(tmp_path / "disk", content_id), DiskFormat.VMDK, seed="sha256:1")
