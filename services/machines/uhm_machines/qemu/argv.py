"""QEMU's command line, as a pure function of what the machine is to be.

The machine type is `microvm` with ACPI and without the old timers and interrupt controller: 25 of 25 boots on a busy
host, where the defaults came up in 11 of 30 (no clock to calibrate delays with). Device order and port names are the
contract with the guest: docs/guest.md. All kinds of start have the same devices, which is what lets one machine be
saved and another be restored from it; what lies behind them differs (uhm_machines.qemu.blocks).

The network card has no forwarded ports: they are opened on the running machine (uhm_machines.qemu.monitor).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uhm_machines.machine import Accelerator
from uhm_machines.qemu.blocks import TOP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uhm_machines.qemu.blocks import Node

__all__ = [
    "CPU",
    "MACHINE",
    "NETWORK",
    "BootFiles",
    "Hardware",
    "MemoryFile",
    "Sockets",
    "build_argv",
    "build_probe_argv",
    "device_signature",
]

MACHINE: Final = "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=off"
CPU: Final = {Accelerator.KVM: "host", Accelerator.TCG: "max"}
NETWORK: Final = "net"
"""Names the user-mode network in the monitor."""
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_DEVICES: Final = (
    "virtio-serial-device",
    "virtconsole,chardev=console",
    "virtserialport,chardev=control,name=uhm.control",
    "virtserialport,chardev=events,name=uhm.events",
    "virtserialport,chardev=output,name=uhm.output",
    f"virtio-blk-device,drive={TOP},discard=on",
    f"virtio-net-device,netdev={NETWORK}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    """What the guest boots."""

    base: str
    """Digest of the base that they are of."""
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
class MemoryFile:
    """A file that is the guest's memory."""

    path: Path
    shared: bool
    """Whether what the guest writes goes to the file; else it stays the machine's own."""


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
    blocks: Sequence[Node],
    sockets: Sockets,
    memory: MemoryFile | None = None,
    template: bool = False,
    incoming: bool = False,
) -> list[str]:
    """The argument list; its relative paths are those of uhm_machines.files.MachineFiles.

    `blocks` has a node named TOP; without `memory` the guest's is anonymous. A `template` waits for its disk; with
    `incoming` nothing runs until a saved state is loaded.
    """
    argv = _board(qemu, boot, hardware, memory=memory, options=" uhm.template" if template else "")
    argv += ["-chardev", f"socket,id=qmp,fd={sockets.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    for name, file in (("console", "console.log"), ("events", "events"), ("output", "output")):
        argv += ["-chardev", f"file,id={name},path={file},append=on"]
    argv += ["-chardev", f"socket,id=control,fd={sockets.control},server=on,wait=off"]
    for node in blocks:
        argv += ["-blockdev", json.dumps(node)]
    argv += ["-netdev", f"user,id={NETWORK},ipv6=off"]
    for device in _DEVICES:
        argv += ["-device", device]
    return [*argv, "-incoming", "defer"] if incoming else argv


def build_probe_argv(qemu: str, *, boot: BootFiles, hardware: Hardware) -> list[str]:
    """The argument list of a guest without a disk, that is to show whether it comes up: it writes to `events`."""
    return [
        *_board(qemu, boot, hardware, memory=None),
        *("-device", "virtio-serial-device"),
        *("-chardev", "file,id=events,path=events"),
        *("-device", "virtserialport,chardev=events,name=uhm.events"),
    ]


def device_signature() -> str:
    """Names the board and its devices: a saved state is of use only to a machine that has the same."""
    return hashlib.sha256("\n".join((MACHINE, *_DEVICES)).encode()).hexdigest()[:16]


def _board(
    qemu: str, boot: BootFiles, hardware: Hardware, *, memory: MemoryFile | None, options: str = ""
) -> list[str]:
    """`tsc_early_khz` and the two after it: the time stamp counter is the only clock, and must be trusted."""
    clock = f"tsc_early_khz={hardware.tsc_khz} tsc=reliable no_timer_check"
    argv = [
        qemu,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-cpu", CPU[hardware.accelerator]),
        *("-smp", str(hardware.vcpus), "-m", str(hardware.memory_mib)),
        *("-kernel", str(boot.kernel), "-initrd", str(boot.initramfs)),
        *("-append", f"{boot.command_line} console=hvc0 {clock}{options}"),
    ]
    machine = f"{MACHINE},accel={hardware.accelerator}"
    if memory is None:
        return [*argv, "-machine", machine]
    backend = {
        "qom-type": "memory-backend-file",
        "id": "ram",
        "size": hardware.memory_mib << 20,
        "mem-path": str(memory.path),
        "share": memory.shared,
    }
    return [*argv, "-object", json.dumps(backend), "-machine", f"{machine},memory-backend=ram"]
