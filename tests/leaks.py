"""What a careless test would leave on the machine: processes, mounts, loop devices, temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

PROGRAMS = {
    "containerd",
    "containerd-shim-runc-v2",
    "docker-proxy",
    "docker-registry",
    "dockerd",
    "mkfs.erofs",
    "nats-server",
    "postgres",
    "qemu-img",
    "qemu-nbd",
    "qemu-storage-daemon",
    "qemu-system-x86_64",
    "supervisord",
}


def traces() -> set[str]:
    """What a careless test would leave behind, as lines that name it."""
    return processes() | mounts() | loop_devices() | temporary_files()


def processes() -> set[str]:
    """Programs that we start, and Python processes that run our services."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        ours = any(Path(word).name in PROGRAMS or word.startswith("uhm_") for word in words[:5])
        if ours and state != "Z":
            found.add(f"process {entry.name}: {' '.join(words)[:200]}")
    return found


def mounts() -> set[str]:
    """Mount points, overlayfs and tmpfs of engines and tests among them."""
    return {f"mount {line.split()[1]}" for line in Path("/proc/self/mounts").read_text().splitlines()}


def loop_devices() -> set[str]:
    """Loop devices that have a file."""
    return {f"loop device {path.parts[3]}" for path in Path("/sys/block").glob("loop*/loop/backing_file")}


def temporary_files() -> set[str]:
    """Entries of the directory for temporary files; pytest's own are below `build`, libguestfs keeps its appliance."""
    found = Path(tempfile.gettempdir()).iterdir()
    return {f"temporary file {path}" for path in found if not path.name.startswith(".guestfs-")}
