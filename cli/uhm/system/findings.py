"""What `uhm doctor` finds out about this machine: one small check each, none of which changes anything."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uhm.render.units import size
from uhm.system.acceleration import kvm_works
from uhm.system.engine import running_engine
from uhm.system.ports import holder_of, is_free
from uhm.system.programs import built_tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm.system.layout import Layout

__all__ = ["CHECKS", "Finding", "password_finding", "port_finding"]

TOOL_SECONDS = 60.0
SETUP = "`make setup` installs it."
SOUND_LENGTH = 8
"""Characters of a password, at least (NIST SP 800-63B, section 5.1.1)."""
LEAST_EROFS = (1, 8)
LEAST_DISK = 5 * 1000**3
LEAST_MEMORY = 1000**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One capability. `essential`: without it the system cannot do its work. `fix` says what to do where it lacks."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    essential: bool = False
    lack: str = "missing"
    """What is said of it, in a word, where it is not as it should be."""


def emulator(_layout: Layout) -> Finding:
    """QEMU for this machine's architecture."""
    program = os.environ.get("UHM_QEMU") or f"qemu-system-{platform.machine()}"
    return _program("qemu", program, essential=True)


def disk_tools(_layout: Layout) -> Finding:
    """What exports disks and makes overlays."""
    found = [_program("qemu-tools", name, essential=True) for name in ("qemu-storage-daemon", "qemu-img")]
    return next((finding for finding in found if not finding.ok), found[0])


def acceleration(layout: Layout) -> Finding:
    """Whether guests really run with KVM: the machines service finds out by starting one, and notes it."""
    fix = "Machines run without it, slower. In a VM, switch on nested virtualization; else let this user use /dev/kvm."
    works = kvm_works(layout)
    if works is not None:
        return Finding(name="kvm", ok=works, detail=f"{'guests run' if works else 'no guest runs'} with it", fix=fix)
    opens = os.access("/dev/kvm", os.R_OK | os.W_OK)
    detail = (
        "/dev/kvm can be opened; the first machine shows whether it works" if opens else "/dev/kvm cannot be opened"
    )
    return Finding(name="kvm", ok=opens, detail=detail, fix=fix)


def erofs(_layout: Layout) -> Finding:
    """mkfs.erofs, new enough to read tar archives."""
    program = os.environ.get("UHM_MKFS_EROFS") or built_tools().get("UHM_MKFS_EROFS", "mkfs.erofs")
    answer = _answer([program, "-V"])
    version = re.search(r"(\d+)\.(\d+)[\d.]*", answer)
    fix = "`make setup` builds it; UHM_MKFS_EROFS names one that is elsewhere."
    if version is None:
        return Finding(name="mkfs.erofs", ok=False, detail=f"{program} is not there", fix=fix, essential=True)
    new_enough = (int(version[1]), int(version[2])) >= LEAST_EROFS
    detail = f"{version[0]} ({program})" + ("" if new_enough else ", but 1.8 is needed")
    return Finding(name="mkfs.erofs", ok=new_enough, detail=detail, fix=fix, essential=True)


def guestfs(_layout: Layout) -> Finding:
    """libguestfs's Python module, which comes with the distribution."""
    code = "import guestfs; print(guestfs.GuestFS(python_return_dict=True).version())"
    answer = _answer([sys.executable, "-c", code])
    fix = "Install python3-guestfs, and make the environment with --system-site-packages, as `make setup` does."
    numbers = re.findall(r"'(?:major|minor|release)': (\d+)", answer)
    detail = ".".join(numbers) if numbers else "python3-guestfs cannot be imported"
    return Finding(name="guestfs", ok=bool(numbers), detail=detail, fix=fix, essential=True)


def docker_engine(layout: Layout) -> Finding:
    """An engine that answers, or one that `uhm up` would start."""
    host = running_engine(os.environ)
    if host:
        return Finding(name="docker", ok=True, detail=f"answers at {host}")
    private = os.geteuid() == 0 and shutil.which("dockerd") is not None
    where = layout.docker_dir
    return Finding(
        name="docker",
        ok=private,
        detail=f"none answers; `uhm up` starts one of its own on {where}" if private else "no engine answers",
        fix="Only Dockerfiles need one: install docker.io, or let DOCKER_HOST name one.",
    )


def guest_kernel(_layout: Layout) -> Finding:
    """What guests boot: a kernel built for them, else the distribution's, which libguestfs needs in any case."""
    built = os.environ.get("UHM_GUEST_KERNEL", built_tools().get("UHM_GUEST_KERNEL", ""))
    installed = _kernel_name("find_kernel()")
    if not installed:
        detail = "no kernel with modules below /boot and /lib/modules"
        fix = "`make setup` installs it (linux-image-cloud-amd64, or any kernel image)."
        return Finding(name="guest-kernel", ok=False, detail=detail, fix=fix, essential=True)
    if not built:
        detail = f"{installed}, the distribution's; `make kernel` builds one that boots sooner"
        return Finding(name="guest-kernel", ok=True, detail=detail, essential=True)
    tuned = _kernel_name("read_built_kernel(Path(sys.argv[1]))", built)
    detail = f"tuned, {tuned}" if tuned else f"{built} holds no kernel"
    fix = "`make kernel` builds it; with UHM_GUEST_KERNEL empty, guests boot the distribution's."
    return Finding(name="guest-kernel", ok=bool(tuned), detail=detail, fix=fix, essential=True)


def guest_init(_layout: Layout) -> Finding:
    """What runs first inside a machine."""
    path = os.environ.get("UHM_GUEST_INIT") or built_tools().get("UHM_GUEST_INIT", "build/guest/init")
    there = Path(path).is_file()
    detail = path if there else f"{path} is not there"
    fix = "`make setup` builds it."
    return Finding(name="guest-init", ok=there, detail=detail, fix=fix, essential=True)


def disk_space(layout: Layout) -> Finding:
    """Room where the state is kept."""
    place = next(path for path in (layout.state_dir, *layout.state_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free
    fix = "Make room, or use --state-dir on another disk."
    return Finding(name="disk", ok=free >= LEAST_DISK, detail=f"{size(free)} free on {place}", fix=fix)


def memory(_layout: Layout) -> Finding:
    """Memory that machines could have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    fix = "A machine takes 256 MiB unless told otherwise: end something, or use -m."
    return Finding(name="memory", ok=available >= LEAST_MEMORY, detail=f"{size(available)} available", fix=fix)


def snapshots(layout: Layout) -> Finding:
    """Memory snapshots that machines start from, as the machines service keeps them."""
    kept = [path.parent for path in (layout.state_dir / "snapshots").glob("[!m]*/snapshot.json")]
    if not kept:
        return Finding(name="snapshots", ok=True, detail="none yet; they are made when an image is ready, and on use")
    blocks = sum(file.stat().st_blocks for directory in kept for file in directory.iterdir())
    return Finding(name="snapshots", ok=True, detail=f"{len(kept)}, {size(blocks * 512)} in all")


def privileges(_layout: Layout) -> Finding:
    """Who runs this; root is needed for little."""
    root = os.geteuid() == 0
    detail = "root" if root else "not root: no Docker Engine of our own, no ports below 1024"
    return Finding(name="user", ok=True, detail=detail)


def port_finding(name: str, port: int, *, ours: bool) -> Finding:
    """A port that `uhm up` would listen on."""
    if ours:
        return Finding(name=name, ok=True, detail=f"{port} is served by the system that runs")
    free = is_free(port)
    holder = "" if free else holder_of(port)
    detail = f"{port} is free" if free else f"{port} is in use{f' by {holder}' if holder else ''}"
    return Finding(
        name=name, ok=free, detail=detail, fix=f"Choose another with `uhm up --{name}`, or end what uses it."
    )


def password_finding(policy: dict[str, Any]) -> Finding:
    """What the system asks of passwords, as AuthService.GetPolicy answers it."""
    length, score = int(policy.get("password_min_length", 0)), int(policy.get("password_min_score", 0))
    registration = policy.get("registration", "")
    return Finding(
        name="passwords",
        ok=length >= SOUND_LENGTH and score > 0,
        detail=f"{length} or more characters, at least {score} of 4 hard to guess; registration: {registration}",
        fix="Before others reach it, start it with UHM_PASSWORD_MIN_LENGTH=12 and UHM_PASSWORD_MIN_SCORE=3.",
        lack="weak",
    )


CHECKS: tuple[Callable[[Layout], Finding], ...] = (
    privileges,
    emulator,
    disk_tools,
    acceleration,
    erofs,
    guestfs,
    docker_engine,
    guest_kernel,
    guest_init,
    snapshots,
    disk_space,
    memory,
)


def _program(name: str, program: str, *, essential: bool) -> Finding:
    """A program that says its version."""
    answer = _answer([program, "--version"])
    version = re.search(r"version (\d[\d.]*)", answer)
    detail = f"{program} {version[1]}" if version else f"{program} is not there"
    return Finding(name=name, ok=version is not None, detail=detail, fix=SETUP, essential=essential)


def _kernel_name(expression: str, *arguments: str) -> str:
    """What uhm_guest.kernel says of a kernel, asked in a process of its own: the command line does without it."""
    code = f"import sys; from pathlib import Path; from uhm_guest.kernel import *; print('kernel:', {expression}.name)"
    found = re.search(r"^kernel: (.+)$", _answer([sys.executable, "-c", code, *arguments]), re.MULTILINE)
    return found[1] if found else ""


def _answer(argv: list[str]) -> str:
    """What a program says, on either stream; nothing where it is not there or fails to end."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr
