"""The second initramfs of a disk that boots by itself: drivers for whatever it is put into, and the programs for that.

    portable/modules.list   `<files in loading order> : <aliases>` a line, which guest/init/hardware.h explains
    portable/m/             the modules
    portable/…              programs: /portable/cloud and what it needs

The loaders add it to the initramfs that every guest has; machines that uhm starts never see it. A kernel that has its
drivers built in needs no modules.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import zstandard

from uhm_guest.initramfs import MODULES, Entry, file_name, pack_cpio
from uhm_guest.kernel import ModuleNotFound, module_aliases, module_closure, read_module

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from uhm_guest.kernel import Kernel

__all__ = ["boot_modules", "build_portable"]

_DISKS = (
    "ahci", "ata_piix", "ata_generic", "nvme", "virtio_scsi", "sd_mod", "sr_mod",
    "vmw_pvscsi", "mptspi", "mptsas", "megaraid_sas", "hv_storvsc", "xen_blkfront",
)  # fmt: skip
_NETWORK_CARDS = (
    "e1000", "e1000e", "igb", "igbvf", "ixgbevf", "vmxnet3", "hv_netvsc", "xen_netfront", "ena", "gve",
    "8139cp", "pcnet32",
)  # fmt: skip
_OTHER_DEVICES = ("virtio_balloon", "virtio_rng", "hv_vmbus", "hv_utils", "button")
_IN_ANY_CASE = ("evdev", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8")
"""What no device asks for: power buttons as files, and the file systems that settings come on."""
_FOR_A_SEAL = ("sha256_generic", "sha256_ssse3", "dm_verity")

_COMPRESSION_LEVEL = 12
_ASKED_FOR_BY_ALIAS = "crc32c_generic"
"""ext4 and EROFS ask for this checksum once they are loaded; where it is a module, no list of dependencies says so."""


def boot_modules(kernel: Kernel) -> tuple[str, ...]:
    """What the first initramfs of such a disk holds of this kernel."""
    return (*([_ASKED_FOR_BY_ALIAS] if _closure_if_any(kernel, _ASKED_FOR_BY_ALIAS) else ()), *MODULES)


def build_portable(kernel: Kernel, programs: Path | None) -> bytes:
    """Pack the drivers of this kernel, those of them that it has, and the files in the directory of programs.

    A kernel with modules is a distribution's, which unpacks what is compressed. Raises OSError for what cannot be read.
    """
    lines, files = _drivers(kernel)
    entries = [
        _directory("portable"),
        *_programs(programs),
        *([_directory("portable/m")] if files else ()),
        *(_file(f"portable/m/{file_name(file)}", read_module(file)) for file in files),
        *([_file("portable/modules.list", "".join(lines).encode())] if lines else ()),
    ]
    archive = pack_cpio(entries)
    if kernel.modules is None:
        return archive
    return zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(archive)


def _drivers(kernel: Kernel) -> tuple[list[str], tuple[Path, ...]]:
    """The lines of the list, and all files that they name and the first initramfs has not loaded."""
    aliases = module_aliases(kernel)
    loaded = frozenset(module_closure(kernel, boot_modules(kernel)))
    lines: list[str] = []
    files: dict[Path, None] = {}
    for name, wanted_by in _wishes(aliases):
        needed = [file for file in _closure_if_any(kernel, name) if file not in loaded]
        if needed:
            lines.append(f"{' '.join(f'/portable/m/{file_name(file)}' for file in needed)} : {' '.join(wanted_by)}\n")
            files.update(dict.fromkeys(needed))
    return lines, tuple(files)


def _wishes(aliases: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each module with the aliases that it is loaded for."""
    for name in (*_DISKS, *_NETWORK_CARDS, *_OTHER_DEVICES):
        yield name, aliases.get(name, ())
    for name in _IN_ANY_CASE:
        yield name, ("portable",)
    for name in _FOR_A_SEAL:
        yield name, ("seal",)


def _closure_if_any(kernel: Kernel, name: str) -> Iterable[Path]:
    """A small flavour lacks drivers; the disk runs where the others suffice."""
    try:
        return module_closure(kernel, [name])
    except ModuleNotFound:
        return ()


def _programs(directory: Path | None) -> Iterator[Entry]:
    for path in sorted(directory.iterdir()) if directory and directory.is_dir() else ():
        if path.is_file():
            mode = stat.S_IFREG | (0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            yield Entry(path=f"portable/{path.name}", mode=mode, content=path.read_bytes())


def _directory(path: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFDIR | 0o755)


def _file(path: str, content: bytes) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | 0o644, content=content)
