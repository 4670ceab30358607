"""Looking at a finished disk as its firmware, its kernel and its init will, through libguestfs and read-only.

What is found is told line by line; the first thing that is wrong ends it with UnfitDisk. The file systems were made of
an image's content, which nobody vouches for: only the appliance's kernel mounts them.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from uhm_builder.appliance import ApplianceFailed, Drive, open_appliance
from uhm_builder.errors import UnfitDisk
from uhm_builder.export.configuration import DATA_BYTES, data_area
from uhm_builder.gpt import ALIGNMENT, SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uhm_builder.appliance import Appliance, Interruption
    from uhm_builder.export.configuration import Pair
    from uhm_builder.export.options import DiskFormat
    from uhm_builder.export.portable import Portable

__all__ = ["inspect"]

_SECONDS = 240.0
_DISK = "/dev/sda"
_ROOT = "/sysroot"
"""Where the appliance's own kernel has what guestfs calls `/`."""
_EMPTY = "/empty"
"""Overlayfs wants two directories at least; an image may have no layer."""
_FILE_SYSTEMS = {"uhm-boot": "vfat", "uhm-base": "erofs", "uhm-layer": "erofs", "uhm-state": "ext4"}
_LOADERS = {"BIOS": "/syslinux/ldlinux.sys", "UEFI": "/EFI/BOOT/BOOTX64.EFI"}
_LOADER_CONFIGURATIONS = ("/syslinux/syslinux.cfg", "/loader/entries/uhm.conf")
_KERNEL = ("/vmlinuz", "/initramfs", "/portable")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def inspect(
    path: Path, disk: Portable, *, disk_format: DiskFormat, kvm: bool, interruption: Interruption | None = None
) -> tuple[str, ...]:
    """What libguestfs finds in a file of this format, compared with what was composed. Takes some 10 s without KVM.

    Raises UnfitDisk for the first thing that is wrong, or when interrupted, ApplianceMissing where there is no
    libguestfs.
    """
    try:
        drive = Drive(path=path, format=disk_format, readonly=True)
        with open_appliance([drive], kvm=kvm, seconds=_SECONDS, interruption=interruption) as appliance:
            return tuple(_findings(appliance, disk))
    except ApplianceFailed as error:
        raise UnfitDisk(f"The disk cannot be looked into. {error.message}") from error


def _findings(appliance: Appliance, disk: Portable) -> Iterator[str]:
    yield _partition_table(appliance, disk)
    yield from _file_systems(appliance, disk)
    yield from _boot_partition(appliance, disk)
    yield _configuration(appliance, disk)
    yield _command(appliance, disk)


def _partition_table(appliance: Appliance, disk: Portable) -> str:
    kind = appliance.call("part_get_parttype", _DISK)
    _expect(kind == "gpt", f"The partition table is {kind}, not gpt.")
    found = [(part["part_start"], part["part_size"]) for part in appliance.call("part_list", _DISK)]
    wanted, start = [], ALIGNMENT
    for partition in disk.partitions:
        wanted.append((start, partition.size))
        start += partition.size
    _expect(found == wanted, f"The partition table has {len(found)} partitions, not the {len(wanted)} composed.")
    size = appliance.call("blockdev_getsize64", _DISK)
    _expect(size >= disk.size, f"The disk has {size} bytes instead of {disk.size}.")
    return f"partition table: gpt, {len(found)} partitions, {disk.size // SECTOR} sectors"


def _file_systems(appliance: Appliance, disk: Portable) -> Iterator[str]:
    """Each is mounted, which is more than to know its signature; those of the layers stay mounted."""
    appliance.call("mkmountpoint", _EMPTY)
    for number, partition in enumerate(disk.partitions, start=1):
        wanted = _FILE_SYSTEMS.get(partition.label)
        if wanted is None:
            continue
        device = f"{_DISK}{number}"
        kind = appliance.call("vfs_type", device)
        _expect(kind == wanted, f"{partition.label} (partition {number}) holds {kind or 'nothing'}, not {wanted}.")
        place = _mount_point(number)
        appliance.call("mkmountpoint", place)
        appliance.call("mount_ro", device, place)
        yield f"partition {number}: {partition.label}, {kind}, {partition.size >> 20} MiB, mounts"


def _boot_partition(appliance: Appliance, disk: Portable) -> Iterator[str]:
    boot = _mount_point(1)
    for firmware, loader in _LOADERS.items():
        _expect(appliance.call("is_file", boot + loader), f"The loader for {firmware}, {loader}, is missing.")
        yield f"loader for {firmware}: {loader}"
    for file in _KERNEL:
        _expect(appliance.call("is_file", boot + file), f"{file} is missing in the boot partition.")
    yield f"kernel: {', '.join(_KERNEL)}"
    option = f"uhm.seal={disk.root_hash or '0' * 64}"
    for file in _LOADER_CONFIGURATIONS:
        text: bytes = appliance.call("read_file", boot + file)
        _expect(option in text.decode(errors="replace"), f"{file} does not give the kernel {option}.")
    yield f"seal: {disk.root_hash or 'none'}"


def _configuration(appliance: Appliance, disk: Portable) -> str:
    number = [partition.label for partition in disk.partitions].index("uhm-config") + 1
    data: bytes = appliance.call("pread_device", f"{_DISK}{number}", DATA_BYTES, 0)
    _expect(data == data_area(disk.configuration), "The configuration is not what was written.")
    return f"configuration: {len(disk.configuration)} settings"


def _command(appliance: Appliance, disk: Portable) -> str:
    """Merged as in a machine, and over the appliance's root, inside of which an image's links then end."""
    labels = enumerate((partition.label for partition in disk.partitions), start=1)
    layers = [_mount_point(number) for number, label in labels if label in {"uhm-base", "uhm-layer"}]
    lower = ":".join(f"{_ROOT}{layer}" for layer in [*reversed(layers), _EMPTY])
    appliance.call("mount_vfs", f"ro,lowerdir={lower}", "overlay", f"{_DISK}1", "/")
    program = _values(disk.configuration, "arg")[0]
    for candidate in _candidates(program, disk.configuration):
        if not appliance.call("is_file", candidate, followsymlinks=True):
            continue
        if stat.S_IMODE(appliance.call("statns", candidate)["st_mode"]) & 0o111:
            return f"command: {candidate}"
    raise UnfitDisk(f"The image's command, {program!r}, is not an executable file in it.")


def _candidates(program: str, configuration: Sequence[Pair]) -> list[str]:
    """Where execvp would look, from the working directory."""
    directory = (_values(configuration, "cwd") or ["/"])[-1]
    if "/" in program:
        return [program if program.startswith("/") else f"{directory}/{program}"]
    variables = dict(variable.partition("=")[::2] for variable in _values(configuration, "env"))
    places = variables.get("PATH", _DEFAULT_PATH).split(":")
    return [f"{place if place.startswith('/') else f'{directory}/{place}'}/{program}" for place in places]


def _values(configuration: Sequence[Pair], key: str) -> list[str]:
    return [value for name, value in configuration if name == key]


def _mount_point(number: int) -> str:
    """Where the file system of a partition is mounted in the appliance."""
    return f"/{number}"


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UnfitDisk(otherwise)
