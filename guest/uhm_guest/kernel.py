"""The kernel that guests boot: found on this host, unpacked, and its modules with all that they need.

It is one that `make kernel` has built, with all that a guest needs built in, or the distribution's with its modules.
A distribution ships a bzImage, which unpacks itself at every boot. QEMU can start the ELF `vmlinux` inside of it
directly through the PVH entry point, which skips real mode and the unpacking; so it is taken out here, once.

Specifications: Documentation/arch/x86/boot.rst (setup header, protocol 2.08), depmod.d(5) for `modules.dep`,
Xen's public/elfnote.h for the PVH note.

    KernelError
     ├─ KernelNotFound      no kernel with modules under /boot and /lib/modules, or none built where one should be
     ├─ KernelImageInvalid  not a bzImage, not unpackable, or without the PVH entry point
     └─ ModuleNotFound      neither a module nor built in
"""

from __future__ import annotations

import bz2
import json
import lzma
import re
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "Kernel",
    "KernelError",
    "KernelImageInvalid",
    "KernelNotFound",
    "ModuleNotFound",
    "choose_kernel",
    "extract_vmlinux",
    "find_kernel",
    "has_pvh_entry",
    "module_aliases",
    "module_closure",
    "read_built_kernel",
    "read_module",
]

_UNPACK_SECONDS = 60
_PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_PT_NOTE = 4
_SIGNATURE_MARK = b"~Module signature appended~\n"


class KernelError(Exception):
    """Base of what this module raises."""


class KernelNotFound(KernelError):
    """No usable kernel is installed."""


class KernelImageInvalid(KernelError):
    """A kernel image cannot be used."""


class ModuleNotFound(KernelError):
    """A module is neither in `modules.dep` nor built in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel of this host."""

    version: str
    image: Path
    """The bzImage."""
    modules: Path | None
    """Its directory under /lib/modules; None where all that a guest needs is built in."""
    profile: str = ""
    """What it was built for, where `make kernel` has: `minimal` or `full`."""

    @property
    def name(self) -> str:
        """What people are told."""
        return f"{self.version} {self.profile}".rstrip()


def choose_kernel(built: Path | None) -> Kernel:
    """The kernel in this directory, as `make kernel` leaves it there; without one, the newest that is installed."""
    return read_built_kernel(built) if built else find_kernel()


def read_built_kernel(directory: Path) -> Kernel:
    """Read what tools/kernel.sh has written. Raises KernelNotFound where it has not finished."""
    try:
        record = json.loads((directory / "kernel.json").read_text())
        return Kernel(version=record["version"], profile=record["profile"], image=directory / "bzImage", modules=None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KernelNotFound(f"no kernel in {directory}; `make kernel` builds one ({error})") from error


def find_kernel(*, boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> Kernel:
    """Choose the newest installed kernel, one of a cloud flavour first: those have no drivers for real hardware.

    libguestfs's appliance boots whichever kernel it chooses itself; the cloud flavour serves it as well.
    """
    found = [
        Kernel(version=image.name.removeprefix("vmlinuz-"), image=image, modules=directory)
        for image in boot.glob("vmlinuz-*")
        if (directory := modules / image.name.removeprefix("vmlinuz-")).joinpath("modules.dep").is_file()
    ]
    if not found:
        raise KernelNotFound(f"no kernel with modules in {boot} and {modules}; install linux-image-cloud-amd64")
    return max(found, key=lambda kernel: (_is_cloud(kernel.version), _version_key(kernel.version)))


def _is_cloud(version: str) -> bool:
    """Tell Debian's `-cloud-` and Ubuntu's `-kvm` flavours from the rest."""
    return "-cloud-" in version or version.endswith("-kvm")


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def extract_vmlinux(image: bytes) -> bytes:
    """Take the ELF kernel out of a bzImage. Raises KernelImageInvalid if that cannot be booted through PVH."""
    if image[0x202:0x206] != b"HdrS":
        raise KernelImageInvalid("not a bzImage: no HdrS at 0x202")
    (protocol,) = struct.unpack_from("<H", image, 0x206)
    if protocol < 0x208:
        raise KernelImageInvalid(
            f"boot protocol {protocol >> 8}.{protocol & 255:02}; 2.08 is needed to find the payload"
        )
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    vmlinux = _decompress(image[start : start + length])
    if not has_pvh_entry(vmlinux):
        raise KernelImageInvalid("the kernel has no PVH entry point (CONFIG_PVH)")
    return vmlinux


def has_pvh_entry(vmlinux: bytes) -> bool:
    """Whether an x86-64 ELF kernel carries the note that names its PVH entry point."""
    if vmlinux[:5] != b"\x7fELF\x02":
        return False
    try:
        return any(_notes_have_entry(notes) for notes in _note_segments(vmlinux))
    except struct.error:  # cut short
        return False


def _note_segments(vmlinux: bytes) -> Iterator[bytes]:
    """Yield the content of each PT_NOTE segment of an ELF-64 file."""
    (headers,) = struct.unpack_from("<Q", vmlinux, 0x20)
    size, count = struct.unpack_from("<HH", vmlinux, 0x36)
    for header in range(headers, headers + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", vmlinux, header)
        if kind == _PT_NOTE:
            yield vmlinux[offset : offset + length]


def _notes_have_entry(notes: bytes) -> bool:
    position = 0
    while position + 12 <= len(notes):
        name_length, value_length, kind = struct.unpack_from("<III", notes, position)
        name = notes[position + 12 : position + 12 + name_length]
        if kind == _PHYS32_ENTRY and name == b"Xen\0":
            return True
        position += 12 + (name_length + 3 & ~3) + (value_length + 3 & ~3)
    return False


def _decompress(payload: bytes) -> bytes:
    """Unpack a kernel's payload, which the build may have followed with the unpacked size."""
    unpackers: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (b"\x1f\x8b", lambda data: zlib.decompressobj(31).decompress(data)),
        (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
        (b"\x5d\0\0", lambda data: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)),
        (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data)),
        (b"\x28\xb5\x2f\xfd", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
        (b"\x02\x21\x4c\x18", _unlz4),
        (b"\x7fELF", bytes),
    )
    for magic, unpack in unpackers:
        if payload.startswith(magic):
            try:
                return unpack(payload)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise KernelImageInvalid(f"the kernel's payload does not unpack: {error}") from error
    raise KernelImageInvalid(f"the kernel's payload is packed in an unknown way: {payload[:4].hex()}")


def _unlz4(payload: bytes) -> bytes:
    """Unpack with the tool. It complains about what follows the stream, after it has written all of it."""
    done = subprocess.run(("lz4", "-dc"), input=payload, capture_output=True, timeout=_UNPACK_SECONDS, check=False)
    if not done.stdout:
        raise KernelImageInvalid(f"lz4 does not unpack the kernel's payload: {done.stderr.decode().strip()}")
    return done.stdout


def module_closure(kernel: Kernel, names: Iterable[str]) -> tuple[Path, ...]:
    """List the files of the named modules and of all that they depend on, in loading order.

    Built-in modules need no file and are left out. Raises ModuleNotFound for a name that the kernel does not know.
    """
    if kernel.modules is None:
        return ()
    files, needs = _read_dependencies(kernel.modules / "modules.dep")
    builtin = {_module_name(line) for line in (kernel.modules / "modules.builtin").read_text().split()}
    ordered: dict[str, None] = {}
    for name in map(_module_name, names):
        if name in files:
            ordered.update(dict.fromkeys((*needs[name], files[name])))
        elif name not in builtin:
            raise ModuleNotFound(f"kernel {kernel.version} has no module {name}")
    return tuple(kernel.modules / path for path in ordered)


def module_aliases(kernel: Kernel) -> dict[str, tuple[str, ...]]:
    """Read which devices each module drives: patterns for their `modalias`, by module name (depmod(8))."""
    if kernel.modules is None:
        return {}
    found: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.alias").read_text().splitlines():
        match line.split():
            case ["alias", pattern, name]:
                found.setdefault(_module_name(name), []).append(pattern)
    return {name: tuple(patterns) for name, patterns in found.items()}


def _read_dependencies(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Read `file: needed-last … needed-first` lines: files by module name, and what each needs in loading order."""
    files: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for line in path.read_text().splitlines():
        file, _, needed = line.partition(":")
        files[_module_name(file)] = file
        needs[_module_name(file)] = tuple(reversed(needed.split()))
    return files, needs


def _module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """Read a module as the guest loads it: unpacked, and without its signature.

    Checking a signature under emulation takes the guest longer than all else about loading a module, and proves
    nothing there: the host that would have to be distrusted also supplies the kernel.
    """
    module = path.read_bytes()
    if path.suffix != ".ko":
        module = _decompress(module)
    if not module.endswith(_SIGNATURE_MARK):
        return module
    trailer = len(module) - len(_SIGNATURE_MARK)
    (signature_length,) = struct.unpack_from(">I", module, trailer - 4)
    return module[: trailer - 12 - signature_length]
