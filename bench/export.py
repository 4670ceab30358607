"""How long an image takes to become a disk that boots by itself, against doing it by hand.

By hand is what libguestfs's manuals say: `docker export` of a container, `virt-make-fs` of that archive, and a kernel
with a boot loader put in with guestfish. That disk boots by BIOS only and knows nothing of the image's command; ours
boots by UEFI too and runs it. Both come of the same nginx image, are qcow2, and are made in turns. Ours is asked for
through REST and counts until its last byte has arrived.

    python -m bench.export [--runs N] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.system import docker, own_system
from tools.local_registry import ensure_images, registry
from uhm_common.dockerd import PrivateDockerd

if TYPE_CHECKING:
    from bench.system import Api

IMAGE = "nginx"
TARGET_RATIO = 0.1
PROBE_SECONDS = 60.0
PROGRAMS = ("virt-make-fs", "guestfish")
WAYS = ("none", "zstd")
SYSLINUX = """DEFAULT linux
LABEL linux
  LINUX /boot/vmlinuz
  INITRD /boot/initrd
  APPEND root=/dev/sda1 rw console=ttyS0
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Exports of one compression: medians of seconds, bytes of the file, and the server's phases."""

    seconds: float
    ratio: float
    bytes: int
    phases_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Result:
    """By compression, beside the way by hand, whose steps are in seconds."""

    date: str
    host: str
    runs: int
    by_hand_seconds: float
    by_hand_steps: dict[str, float]
    by_hand_bytes: int
    ways: dict[str, Way]
    same_bytes: bool
    """Whether all exports of a kind had the same digest."""

    @property
    def met(self) -> bool:
        """Whether every way is at least ten times as fast, and always the same."""
        return self.same_bytes and all(way.ratio <= TARGET_RATIO for way in self.ways.values())


@dataclass(frozen=True, kw_only=True)
class Export:
    """One export as its client saw it."""

    seconds: float
    bytes: int
    digest: str
    phases_ms: dict[str, float]


def main() -> None:
    """Prints a table or one JSON document; ends with 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.export", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        parser.error(f"{' and '.join(missing)} not found: install the packages guestfs-tools and guestfish")
    ensure_images()
    with (
        tempfile.TemporaryDirectory(prefix="uhm-bench-") as name,
        registry() as mirror,
        own_system(Path(name) / "state", mirror) as api,
    ):
        result = measure(api, Path(name), mirror=mirror, runs=arguments.runs)
    sys.stdout.write((json.dumps(asdict(result), indent=2) if arguments.json else table(result)) + "\n")
    sys.exit(0 if result.met else 1)


def measure(api: Api, directory: Path, *, mirror: str, runs: int) -> Result:
    """In turns, with an engine that holds the image."""
    api.make_image(IMAGE)
    kvm = kvm_works(directory / "state" / "machines" / "host.json")
    engine = PrivateDockerd(directory / "engine", registry_mirror=mirror)
    by_hand: list[dict[str, float]] = []
    exports: dict[str, list[Export]] = {way: [] for way in WAYS}
    try:
        engine.start()
        docker(engine.host, "pull", "--quiet", IMAGE)
        for number in range(1, runs + 1):
            by_hand.append(make_by_hand(engine.host, directory, kvm=kvm))
            for way in WAYS:
                exports[way].append(export(api, directory / "disk", compression=way))
            took = ", ".join(f"{way} {exports[way][-1].seconds:.3f} s" for way in WAYS)
            sys.stderr.write(f"{number:3}: by hand {sum(by_hand[-1].values()):.1f} s, {took}\n")
    finally:
        engine.remove()
    hand = statistics.median(sum(steps.values()) for steps in by_hand)
    return Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        host=f"{os.cpu_count()} cores, Linux {platform.release()}, {'KVM' if kvm else 'no KVM'}",
        runs=runs,
        by_hand_seconds=round(hand, 3),
        by_hand_steps={step: round(statistics.median(each[step] for each in by_hand), 3) for step in by_hand[0]},
        by_hand_bytes=(directory / "by-hand.qcow2").stat().st_size,
        ways={way: _way(made, hand) for way, made in exports.items()},
        same_bytes=all(len({each.digest for each in made}) == 1 for made in exports.values()),
    )


def export(api: Api, path: Path, *, compression: str) -> Export:
    """An export through REST into a file, checked against the digest that was told."""
    began = time.monotonic()
    digest = hashlib.sha256()
    with api.download(f"images/{IMAGE}:export", {"compression": compression}) as answer, path.open("wb") as file:
        for piece in answer.iter_raw():
            digest.update(piece)
            file.write(piece)
    seconds = time.monotonic() - began
    assert answer.headers["grpc-metadata-uhm-digest"] == f"sha256:{digest.hexdigest()}"
    phases = json.loads(answer.headers["grpc-metadata-uhm-phases"])
    return Export(
        seconds=seconds,
        bytes=path.stat().st_size,
        digest=digest.hexdigest(),
        phases_ms={phase["name"]: phase["duration_ms"] for phase in phases},
    )


def make_by_hand(engine: str, directory: Path, *, kvm: bool) -> dict[str, float]:
    """Seconds of each step. Without KVM libguestfs is told so, as the builder tells it."""
    backend = {"LIBGUESTFS_BACKEND": "direct"} | ({} if kvm else {"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"})
    archive, disk = directory / "root.tar", directory / "by-hand.qcow2"
    container = docker(engine, "create", IMAGE)
    steps = {
        "docker export": ["docker", "--host", engine, "export", "--output", str(archive), container],
        "virt-make-fs": ["virt-make-fs", "--format=qcow2", "--type=ext4", "--partition", "--size=+256M",
                         str(archive), str(disk)],
        "boot loader": ["guestfish", "--format=qcow2", "-a", str(disk), "-m", "/dev/sda1", *loader_commands(directory)],
    }  # fmt: skip
    took = {}
    for step, argv in steps.items():
        began = time.monotonic()
        done = subprocess.run(argv, check=False, env=os.environ | backend, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{step} failed: {done.stderr.strip()}")
        took[step] = time.monotonic() - began
    docker(engine, "rm", container)
    return took


def loader_commands(directory: Path) -> list[str]:
    """guestfish's, to put in this host's kernel and make the disk bootable."""
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    initrd = Path("/boot") / kernel.name.replace("vmlinuz-", "initrd.img-")
    configuration = directory / "syslinux.cfg"
    configuration.write_text(SYSLINUX)
    commands = [
        ["mkdir-p", "/boot"],
        ["upload", str(kernel), "/boot/vmlinuz"],
        *([["upload", str(initrd), "/boot/initrd"]] if initrd.is_file() else []),
        ["upload", str(configuration), "/boot/syslinux.cfg"],
        ["extlinux", "/boot"],
        ["upload", "/usr/lib/syslinux/mbr/mbr.bin", "/dev/sda"],
        ["part-set-bootable", "/dev/sda", "1", "true"],
    ]
    return [word for command in commands for word in (*command, ":")][:-1]


def kvm_works(noted: Path) -> bool:
    """What the machines service has found out about this host, soon after its start."""
    deadline = time.monotonic() + PROBE_SECONDS
    while not noted.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(json.loads(noted.read_text())["kvm"])


def _way(exports: list[Export], by_hand: float) -> Way:
    seconds = statistics.median(each.seconds for each in exports)
    return Way(
        seconds=round(seconds, 3),
        ratio=round(seconds / by_hand, 4),
        bytes=exports[0].bytes,
        phases_ms={
            name: round(statistics.median(each.phases_ms[name] for each in exports), 1) for name in exports[0].phases_ms
        },
    )


def table(result: Result) -> str:
    """For people."""
    steps = "   ".join(f"{step} {seconds:.1f} s" for step, seconds in result.by_hand_steps.items())
    lines = [
        f"{result.date[:10]}: {result.host}",
        f"{IMAGE} to a bootable qcow2, medians of {result.runs}",
        f"  by hand      {result.by_hand_seconds:8.3f} s   {result.by_hand_bytes / 1e6:6.1f} MB   {steps}",
    ]
    for name, way in result.ways.items():
        judged = f"{way.ratio} x by hand (target {TARGET_RATIO}: {'met' if way.ratio <= TARGET_RATIO else 'missed'})"
        phases = "   ".join(f"{phase} {taken:.0f} ms" for phase, taken in way.phases_ms.items())
        lines += [f"  uhm, {name:<7} {way.seconds:8.3f} s   {way.bytes / 1e6:6.1f} MB   {judged}", f"    {phases}"]
    return "\n".join([*lines, f"  every export of a kind the same bytes: {'yes' if result.same_bytes else 'NO'}"])


if __name__ == "__main__":
    main()
