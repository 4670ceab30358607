"""The shape of a machine: all that the memory snapshot of one is bound to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from uhm_machines.machine import Accelerator
from uhm_machines.qemu.argv import CPU, Hardware, device_signature

if TYPE_CHECKING:
    from uhm_machines.disks import ImageDisk
    from uhm_machines.probe import HostProbe

__all__ = ["Shape", "shape_of"]

_CLOCK_DIGITS: Final = 4
_CPUINFO: Final = Path("/proc/cpuinfo")
_CPU_FIELDS: Final = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What two machines must have in common for one to be restored from a snapshot of the other."""

    base: str
    """Digest: the kernel, its command line, init and the base root file system."""
    qemu_version: str
    devices: str
    """Signature of the board and what is on it."""
    cpu: str
    accelerator: Accelerator
    tsc_khz: int
    memory_mib: int
    vcpus: int
    disk_size: int

    @property
    def digest(self) -> str:
        """Names it. The clock's rate is measured anew at each boot, a few kHz apart: what is as near is the same."""
        values = asdict(self) | {"tsc_khz": round(self.tsc_khz, -_CLOCK_DIGITS)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def hardware(self) -> Hardware:
        """The part that QEMU's command line is told."""
        return Hardware(
            accelerator=self.accelerator, tsc_khz=self.tsc_khz, memory_mib=self.memory_mib, vcpus=self.vcpus
        )

    def __str__(self) -> str:
        return f"{self.memory_mib} MiB and {self.vcpus} processor{'s' if self.vcpus > 1 else ''}"


async def shape_of(disk: ImageDisk, probe: HostProbe, *, memory_mib: int, vcpus: int) -> Shape:
    """The shape that a machine has on this host. Raises HostUnsuitable where there is no QEMU."""
    host = await probe.host(disk.boot)
    accelerator = await probe.accelerator(disk.boot)
    return Shape(
        base=disk.boot.base,
        qemu_version=host.qemu_version,
        devices=device_signature(),
        cpu=_cpu(accelerator),
        accelerator=accelerator,
        tsc_khz=host.tsc_khz,
        memory_mib=memory_mib,
        vcpus=vcpus,
        disk_size=disk.machine_size,
    )


@cache
def _cpu(accelerator: Accelerator) -> str:
    """The processor that guests see: with KVM it is the host's, so a snapshot does not outlive a change of that."""
    if accelerator is Accelerator.TCG:
        return CPU[accelerator]
    first = _CPUINFO.read_text().partition("\n\n")[0]
    lines = [line for line in first.splitlines() if line.partition("\t")[0].strip(" :") in _CPU_FIELDS]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{CPU[accelerator]}:{digest[:16]}"
