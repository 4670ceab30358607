"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Host"]


@dataclass(frozen=True, kw_only=True)
class Host:
    """This host, and what guests run on."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    qemu: str
    docker: str
    accelerator: str
    guest_kernel: str

    @classmethod
    def of(cls, machine: Mapping[str, Any]) -> Self:
        """Of this host, by what it says and a machine that ran."""
        return cls(
            cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
            cores=os.cpu_count() or 1,
            memory_gib=round(int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) / 2**20, 1),
            kernel=platform.release(),
            qemu=_version(os.environ.get("UHM_QEMU") or f"qemu-system-{platform.machine()}"),
            docker=_version("docker"),
            accelerator=machine.get("accelerator", ""),
            guest_kernel=machine.get("kernel", ""),
        )

    @property
    def tuned_kernel(self) -> bool:
        """Whether guests boot a kernel made for them: then its name has its profile, too."""
        return " " in self.guest_kernel

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, Linux {self.kernel}, QEMU {self.qemu} with "
            f"{self.accelerator.upper()}, guest kernel {self.guest_kernel}, docker {self.docker}"
        )


def _field(path: Path, name: str) -> str:
    """The first value of that name."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", path.read_text(), re.MULTILINE)
    return found[1] if found else ""


def _version(program: str) -> str:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d[\w.]*)", answer)
    return found[1] if found else "unknown"
