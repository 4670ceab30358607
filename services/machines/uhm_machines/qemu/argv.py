"""QEMU's command line, as a pure function of what the machine is to be.

The machine type is `microvm` with ACPI and without the old timers and interrupt controller: 25 of 25 boots on a busy
host, where the defaults came up in 11 of 30 (no clock to calibrate delays with). Device order and port names are the
contract with the guest: docs/guest.md.

The image's disk is a read-only NBD export on a Unix socket, the machine's own disk a qcow2 over it. Host caching stays
on, because machines share what they read; a guest's flush is an fdatasync of the overlay, so what a database in the
guest has committed is on the host's disk; what the guest discards is given back to the host's file system.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uhm_machines.machine import Accelerator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uhm_machines.machine import PortMapping

__all__ = [
    "RECONNECT_SECONDS",
    "BootFiles",
    "ExportedDisk",
    "Hardware",
    "Sockets",
    "build_argv",
    "build_probe_argv",
    "clock_arguments",
]

RECONNECT_SECONDS: Final = 3600
"""How long reads of the image wait for the export to come back, before the guest sees an error."""
_OPEN_SECONDS: Final = 10
_MACHINE: Final = "microvm,accel={accelerator},acpi=on,pit=off,pic=off,rtc=on,isa-serial=off"
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_CPU: Final = {Accelerator.KVM: "host", Accelerator.TCG: "max"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    """What the guest boots."""

    kernel: Path
    """An ELF vmlinux with the PVH entry point."""
    kernel_version: str
    """With its profile, as the base names it."""
    initramfs: Path
    command_line: str
    """What every guest's kernel is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What executes the guest, and how much of it there is."""

    accelerator: Accelerator
    tsc_khz: int
    memory_mib: int
    vcpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDisk:
    """The image's disk, and the overlay of this machine over it. Paths are relative to the machine's directory."""

    socket: str
    export: str
    overlay: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """File descriptors of listening Unix sockets, inherited by QEMU: they can be connected to before QEMU is up."""

    qmp: int
    control: int


def build_argv(
    qemu: str,
    *,
    boot: BootFiles,
    hardware: Hardware,
    disk: ExportedDisk,
    sockets: Sockets,
    ports: Sequence[PortMapping] = (),
) -> list[str]:
    """The argument list; its relative paths are those of uhm_machines.files.MachineFiles."""
    return [
        *_board(qemu, boot, hardware),
        *("-chardev", f"socket,id=qmp,fd={sockets.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *_serial_ports(sockets.control),
        *_disk(disk),
        *_network(ports),
    ]


def build_probe_argv(qemu: str, *, boot: BootFiles, hardware: Hardware) -> list[str]:
    """The argument list of a guest without a disk, that is to show whether it comes up: it writes to `events`."""
    return [
        *_board(qemu, boot, hardware),
        *("-device", "virtio-serial-device"),
        *("-chardev", "file,id=events,path=events"),
        *("-device", "virtserialport,chardev=events,name=uhm.events"),
    ]


def clock_arguments(tsc_khz: int) -> str:
    """What the kernel must be told to trust its only clock, the time stamp counter."""
    return f"tsc_early_khz={tsc_khz} tsc=reliable no_timer_check"


def quoted(value: str) -> str:
    """A value as QEMU's option lists take it: a comma ends one, two are one."""
    return value.replace(",", ",,")


def _board(qemu: str, boot: BootFiles, hardware: Hardware) -> list[str]:
    command_line = f"{boot.command_line} console=hvc0 {clock_arguments(hardware.tsc_khz)}"
    return [
        qemu,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-machine", _MACHINE.format(accelerator=hardware.accelerator)),
        *("-cpu", _CPU[hardware.accelerator]),
        *("-smp", str(hardware.vcpus), "-m", str(hardware.memory_mib)),
        *("-kernel", str(boot.kernel), "-initrd", str(boot.initramfs), "-append", command_line),
    ]


def _serial_ports(control: int) -> list[str]:
    return [
        *("-device", "virtio-serial-device"),
        *("-chardev", "file,id=console,path=console.log,append=on"),
        *("-device", "virtconsole,chardev=console"),
        *("-chardev", f"socket,id=control,fd={control},server=on,wait=off"),
        *("-device", "virtserialport,chardev=control,name=uhm.control"),
        *("-chardev", "file,id=events,path=events,append=on"),
        *("-device", "virtserialport,chardev=events,name=uhm.events"),
        *("-chardev", "file,id=output,path=output,append=on"),
        *("-device", "virtserialport,chardev=output,name=uhm.output"),
    ]


def _disk(disk: ExportedDisk) -> list[str]:
    image = (
        f"driver=nbd,node-name=image,read-only=on,server.type=unix,server.path={quoted(disk.socket)},"
        f"export={quoted(disk.export)},reconnect-delay={RECONNECT_SECONDS},open-timeout={_OPEN_SECONDS}"
    )
    overlay = (
        f"driver=qcow2,node-name=disk,backing=image,discard=unmap,"
        f"file.driver=file,file.filename={quoted(disk.overlay)},file.discard=unmap"
    )
    return ["-blockdev", image, "-blockdev", overlay, "-device", "virtio-blk-device,drive=disk,discard=on"]


def _network(ports: Sequence[PortMapping]) -> list[str]:
    forwards = "".join(
        f",hostfwd={port.transport}:{port.host_address}:{port.host_port}-:{port.guest_port}" for port in ports
    )
    return ["-netdev", f"user,id=net,ipv6=off{forwards}", "-device", "virtio-net-device,netdev=net"]
