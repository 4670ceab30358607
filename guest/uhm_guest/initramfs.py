"""The initramfs: init and, where they are not built in, the modules that the disk and the ports need, and their list.

A cpio archive in the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed: under
emulation, reading more bytes is cheaper than unpacking fewer. The same content gives the same bytes.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_guest.kernel import Kernel, module_closure, read_module

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["MODULES", "Entry", "build_initramfs", "file_name", "pack_cpio"]

ALIGNMENT = 4
PAGE = 4096
MODULES = (
    "virtio_mmio",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "erofs",
    "overlay",
    "ext4",
)
"""What a guest needs in order to reach its root. The ports come first: what goes wrong later can be reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a cpio archive, owned by root."""

    path: str
    """Without a leading slash."""
    mode: int
    """Type and permission bits, as in `st_mode`."""
    content: bytes = b""
    device: tuple[int, int] = (0, 0)
    """Major and minor number, of a device node."""


def pack_cpio(entries: Iterable[Entry]) -> bytes:
    """Pack entries, in the order given, into a `newc` archive with all times at zero."""
    parts: list[bytes] = []
    for inode, entry in enumerate(entries, start=1):
        parts += _pack_entry(entry, inode)
    parts += _pack_entry(Entry(path="TRAILER!!!", mode=0), 0)
    return b"".join(parts)


def _pack_entry(entry: Entry, inode: int) -> list[bytes]:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    #        inode mode        uid gid links time size            device of it  of the node    name       checksum
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return [head, _padding(len(head)), entry.content, _padding(len(entry.content))]


def _padding(length: int) -> bytes:
    return bytes(-length % 4)


def build_initramfs(init: Path, kernel: Kernel, *, modules: Iterable[str] = MODULES) -> bytes:
    """Pack the init program, the modules with what they depend on, and `/modules.list` in loading order.

    Raises ModuleNotFound where the kernel lacks one, OSError where a file cannot be read.
    """
    files = module_closure(kernel, modules)
    entries = [
        Entry(path="dev", mode=stat.S_IFDIR | 0o755),
        Entry(path="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry(path="init", mode=stat.S_IFREG | 0o755, content=init.read_bytes()),
        *(_module_entries(files) if files else ()),
    ]
    return pad_to_spare_a_page(pack_cpio(entries))


def _module_entries(files: Sequence[Path]) -> list[Entry]:
    names = [f"m/{file_name(file)}" for file in files]
    return [
        Entry(path="m", mode=stat.S_IFDIR | 0o755),
        *(
            Entry(path=name, mode=stat.S_IFREG | 0o644, content=read_module(file))
            for name, file in zip(names, files, strict=True)
        ),
        Entry(path="modules.list", mode=stat.S_IFREG | 0o644, content="".join(f"/{name}\n" for name in names).encode()),
    ]


def file_name(module: Path) -> str:
    """What an unpacked module is called in the archive."""
    return f"{module.name.split('.')[0]}.ko"


def pad_to_spare_a_page(archive: bytes) -> bytes:
    """Fill the archive up with zeros, which the kernel skips, so that its last page holds next to nothing of it.

    QEMU loads an initramfs at the top of memory, where microvm's firmware then puts its ACPI tables: between the
    archive's end and the end of memory, without looking whether they fit. A guest without tables has no timer.
    """
    return archive + bytes((ALIGNMENT - len(archive)) % PAGE)
