"""Kernels made up for the purpose: found, unpacked, and their modules put in order."""

from __future__ import annotations

import gzip
import lzma
import struct
from typing import TYPE_CHECKING

import pytest
import zstandard

from uhm_guest.kernel import (
    Kernel,
    KernelImageInvalid,
    KernelNotFound,
    ModuleNotFound,
    choose_kernel,
    extract_vmlinux,
    find_kernel,
    has_pvh_entry,
    module_closure,
    read_module,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def elf(*, name: bytes = b"Xen\0", kind: int = 18) -> bytes:
    """An ELF-64 file with one PT_NOTE segment that holds another note and this one."""
    other = struct.pack("<III", 4, 2, 3) + b"GNU\0" + b"id\0\0"
    note = other + struct.pack("<III", len(name), 4, kind) + name + bytes(-len(name) % 4) + b"\0\0\0\1"
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, 1)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 4)
    return bytes(header) + program + note


def bzimage(payload: bytes, *, protocol: int = 0x20F) -> bytes:
    """A bzImage of two setup sectors with this payload at offset 100 of its protected-mode part."""
    image = bytearray(3 * 512)
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + bytes(100) + payload + b"what follows"


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress, bytes],
    ids=["gzip", "xz", "zstd", "plain"],
)
def test_the_payload_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    assert extract_vmlinux(bzimage(pack(elf()))) == elf()


def test_the_size_after_the_payload_is_ignored() -> None:
    assert extract_vmlinux(bzimage(lzma.compress(elf()) + struct.pack("<I", len(elf())))) == elf()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (bytes(1024), "not a bzImage"),
        (b"", "not a bzImage"),
        (bzimage(gzip.compress(elf()), protocol=0x207), "boot protocol 2.07"),
        (bzimage(b"mystery"), "unknown way: 6d797374"),
        (bzimage(gzip.compress(elf())[:20]), "no PVH entry"),
        (bzimage(b"\xfd7zXZ\0garbage-----"), "does not unpack"),
        (bzimage(gzip.compress(elf(kind=17))), "no PVH entry"),
    ],
)
def test_what_cannot_boot_is_refused(image: bytes, message: str) -> None:
    with pytest.raises(KernelImageInvalid, match=message):
        extract_vmlinux(image)


@pytest.mark.parametrize(
    ("vmlinux", "expected"),
    [(elf(), True), (elf(kind=3), False), (elf(name=b"Xe\0"), False), (b"\x7fELF\x01", False), (b"", False)],
)
def test_the_pvh_note(vmlinux: bytes, expected: bool) -> None:
    assert has_pvh_entry(vmlinux) is expected


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        (["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-10-amd64"),
        (["6.12.1-amd64", "6.1.0-10-cloud-amd64"], "6.1.0-10-cloud-amd64"),
        (["6.8.0-31-generic", "6.8.0-30-kvm"], "6.8.0-30-kvm"),
    ],
)
def test_the_newest_cloud_kernel_is_chosen(tmp_path: Path, versions: list[str], chosen: str) -> None:
    for version in versions:
        (tmp_path / f"vmlinuz-{version}").touch()
        (tmp_path / version).mkdir()
        (tmp_path / version / "modules.dep").touch()
    assert find_kernel(boot=tmp_path, modules=tmp_path).version == chosen


def test_a_kernel_without_modules_is_none(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz-6.1").touch()
    with pytest.raises(KernelNotFound, match="linux-image-cloud-amd64"):
        find_kernel(boot=tmp_path, modules=tmp_path)


def test_a_built_kernel_needs_no_modules(tmp_path: Path) -> None:
    (tmp_path / "kernel.json").write_text('{"version": "6.1.192", "profile": "minimal", "digest": "sha256:0"}')
    kernel = choose_kernel(tmp_path)
    assert (kernel.name, kernel.image) == ("6.1.192 minimal", tmp_path / "bzImage")
    assert module_closure(kernel, ["virtio_blk"]) == ()


@pytest.mark.parametrize("record", [None, "", "[]", '{"version": "6.1.192"}'])
def test_a_kernel_that_is_not_built_is_not_found(tmp_path: Path, record: str | None) -> None:
    if record is not None:
        (tmp_path / "kernel.json").write_text(record)
    with pytest.raises(KernelNotFound, match="make kernel"):
        choose_kernel(tmp_path)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    (tmp_path / "modules.dep").write_text(
        "a/virtio_ring.ko:\n"
        "a/virtio.ko: a/virtio_ring.ko\n"
        "a/virtio-net.ko.xz: a/net_failover.ko a/failover.ko a/virtio.ko a/virtio_ring.ko\n"
        "a/net_failover.ko: a/failover.ko\n"
        "a/failover.ko:\n"
        "a/virtio_blk.ko: a/virtio.ko a/virtio_ring.ko\n"
    )
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return Kernel(version="6.1", image=tmp_path / "vmlinuz", modules=tmp_path)


def test_what_a_module_needs_is_loaded_before_it_and_once(kernel: Kernel) -> None:
    names = [path.name for path in module_closure(kernel, ["virtio_blk", "virtio_net", "ext4"])]
    assert names == [
        "virtio_ring.ko", "virtio.ko", "virtio_blk.ko", "failover.ko", "net_failover.ko", "virtio-net.ko.xz",
    ]  # fmt: skip


def test_an_unknown_module_is_named(kernel: Kernel) -> None:
    with pytest.raises(ModuleNotFound, match=r"6\.1 has no module zfs"):
        module_closure(kernel, ["zfs"])


def test_a_module_is_unpacked_and_its_signature_dropped(tmp_path: Path) -> None:
    signature = b"s" * 300 + bytes(8) + struct.pack(">I", 300) + b"~Module signature appended~\n"
    plain, packed = tmp_path / "a.ko", tmp_path / "a.ko.xz"
    plain.write_bytes(b"module" + signature)
    packed.write_bytes(lzma.compress(b"module" + signature))
    assert read_module(plain) == read_module(packed) == b"module"
    plain.write_bytes(b"unsigned")
    assert read_module(plain) == b"unsigned"
