"""What this host can do: found out by trying, kept until the host boots again or gets another QEMU.

That /dev/kvm opens proves nothing: there are hosts where it creates processors on which no kernel runs. So a guest is
booted with it, without a disk, until its init speaks or it has had more time of the processor than that ever takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uhm_common.errors import UhmError
from uhm_common.logs import get_logger
from uhm_common.process import ProcessFailed, run
from uhm_guest.clock import measure_tsc_khz
from uhm_machines.channel import EventLog
from uhm_machines.disks import read_boot_files
from uhm_machines.errors import HostUnsuitable
from uhm_machines.machine import Accelerator
from uhm_machines.qemu.argv import Hardware, build_probe_argv
from uhm_machines.qemu.process import DetachedProcess, cpu_seconds

if TYPE_CHECKING:
    from typing import Literal

    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.qemu.argv import BootFiles

__all__ = ["Host", "HostProbe", "host_memory_mib"]

log = get_logger()

KVM_DEVICE: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_VERSION: Final = re.compile(r"version (\d+(?:\.\d+)+)")
_TOOL_SECONDS: Final = 20.0
_KVM_GUEST_SECONDS: Final = 6.0
_KVM_GUEST_CPU_SECONDS: Final = 1.5
"""A guest that KVM runs reaches init with a third of it; one that hangs spins, so this is its limit on an idle host."""
_POLL_SECONDS: Final = 0.02
_LOOK_FOR_BASE_SECONDS: Final = 0.5
_PROBE_MEMORY_MIB: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What was found out."""

    boot_id: str
    """Of the host: the findings are good until it boots again."""
    qemu_version: str
    tsc_khz: int
    kvm: bool
    """Whether a guest came up with KVM."""


def host_memory_mib() -> int:
    """The host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)


class HostProbe:
    """Finds out about the host once; further questions are answered from memory, or from the cache file."""

    def __init__(self, *, qemu: str, accelerator: Literal["auto", "kvm", "tcg"], cache: Path) -> None:
        self._qemu = qemu
        self._accelerator = accelerator
        self._cache = cache
        self._host: Host | None = None
        self._probing = asyncio.Lock()

    async def host(self, boot: BootFiles) -> Host:
        """What this host can do. `boot` is what to try KVM with. Raises HostUnsuitable where there is no QEMU."""
        async with self._probing:
            if self._host is None:
                self._host = await self._find_out(boot)
            return self._host

    async def accelerator(self, boot: BootFiles) -> Accelerator:
        """What guests run with: what the settings say, else KVM where it works."""
        if self._accelerator != "auto":
            return Accelerator(self._accelerator)
        return Accelerator.KVM if (await self.host(boot)).kvm else Accelerator.TCG

    async def probe_early(self, artifacts: ArtifactStore) -> BootFiles:
        """Probes as soon as there is something to boot, so that the first start need not wait; answers what it was."""
        while True:
            bases = await asyncio.to_thread(lambda: sorted((artifacts.root / "bases").glob("*/base.json"), key=_age))
            if bases:
                boot = read_boot_files(bases[0].parent)
                with contextlib.suppress(UhmError):
                    await self.host(boot)
                    return boot
            await asyncio.sleep(_LOOK_FOR_BASE_SECONDS)

    async def _find_out(self, boot: BootFiles) -> Host:
        version = await asyncio.to_thread(qemu_version, self._qemu)
        boot_id = _BOOT_ID.read_text().strip()
        cached = _read_cache(self._cache)
        if cached is not None and (cached.boot_id, cached.qemu_version) == (boot_id, version):
            return cached
        try:
            tsc_khz = await asyncio.to_thread(measure_tsc_khz)
        except OSError as error:
            raise HostUnsuitable(f"The rate of the time stamp counter cannot be measured: {error}") from error
        kvm = self._accelerator != "tcg" and await self._kvm_works(boot, tsc_khz)
        host = Host(boot_id=boot_id, qemu_version=version, tsc_khz=tsc_khz, kvm=kvm)
        if self._accelerator == "auto":
            _write_cache(self._cache, host)
        log.info("host.probed", **asdict(host))
        return host

    async def _kvm_works(self, boot: BootFiles, tsc_khz: int) -> bool:
        """Boots a guest with KVM until its init speaks."""
        if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
            return False
        hardware = Hardware(accelerator=Accelerator.KVM, tsc_khz=tsc_khz, memory_mib=_PROBE_MEMORY_MIB, vcpus=1)
        with tempfile.TemporaryDirectory(prefix="uhm-probe-") as name:
            directory = Path(name)
            process = await DetachedProcess.spawn(directory, build_probe_argv(self._qemu, boot=boot, hardware=hardware))
            try:
                return await _init_speaks(directory / "events", process)
            finally:
                await process.end()


def _age(path: Path) -> float:
    """Sorts the newest first."""
    return -path.stat().st_mtime


async def _init_speaks(events: Path, process: DetachedProcess) -> bool:
    """Whether the guest's init says something in time and before QEMU ends."""
    reader = EventLog(events)
    ended = asyncio.create_task(process.ended())
    try:
        async with asyncio.timeout(_KVM_GUEST_SECONDS):
            while not ended.done() and cpu_seconds(process.pid) < _KVM_GUEST_CPU_SECONDS:
                if any(event.name == "init" for event in reader.read_new()):
                    return True
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    finally:
        ended.cancel()
    return any(event.name == "init" for event in reader.read_new())


def qemu_version(qemu: str) -> str:
    """The version of a QEMU, `7.2.22`. Blocks. Raises HostUnsuitable where it is not there."""
    if shutil.which(qemu) is None:
        raise HostUnsuitable(f"{qemu} is not installed.", hint="`make setup` installs it, or set UHM_QEMU.")
    try:
        answer = run([qemu, "--version"], timeout=_TOOL_SECONDS).stdout.decode(errors="replace")
    except ProcessFailed as error:
        raise HostUnsuitable(f"{qemu} cannot be used: {error.message}") from error
    return parse_version(answer)


def parse_version(answer: str) -> str:
    """The number in `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)`. Raises HostUnsuitable."""
    match = _VERSION.search(answer)
    if match is None:
        raise HostUnsuitable(f"QEMU says no version: {answer[:100]!r}")
    return match[1]


def _read_cache(path: Path) -> Host | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        record: dict[str, Any] = json.loads(path.read_text())
        return Host(**record)
    return None


def _write_cache(path: Path, host: Host) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(asdict(host), indent=2) + "\n")
    staged.rename(path)
