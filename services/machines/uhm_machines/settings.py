"""What this service is told from outside, beside what all are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from uhm_common.settings import Address, CommonSettings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings"]


class Settings(CommonSettings):
    """Settings of the machines service; each is `UHM_` and its name in the environment."""

    listen: Address = "127.0.0.1:50063"
    qemu: str = Field(default="qemu-system-x86_64", description="The emulator, a name in PATH or a path.")
    accelerator: Literal["auto", "kvm", "tcg"] = Field(default="auto", description="auto: KVM where it really works.")
    max_machines: int = Field(default=200, ge=1, description="How many machines may run at once.")
    max_memory_mib: int = Field(
        default=0, ge=0, description="Memory of all running machines; 0: twice the host's, since they share most of it."
    )
    snapshots: Literal["auto", "off"] = Field(default="auto", description="auto: made in the background, and used.")
    max_snapshots_mib: int = Field(default=4096, ge=0, description="What memory snapshots may take of the disk.")
    spare_machines: int = Field(default=4, ge=0, description="Restored machines that wait to be used, at most.")
    start_seconds: float = Field(default=180, gt=0, description="What a guest may take until its workload is started.")
    max_log_mib: int = Field(default=16, ge=1, description="Kept of each machine's output and of its console.")

    @property
    def machines_dir(self) -> Path:
        """One directory per machine, and what this service knows of its host."""
        return self.state_dir / "machines"

    @property
    def snapshots_dir(self) -> Path:
        """Memory snapshots."""
        return self.state_dir / "snapshots"

    @property
    def exports_dir(self) -> Path:
        """Sockets and process of the daemon that exports images' disks."""
        return self.state_dir / "exports"
