"""Disks that boot by themselves, under both firmwares and on each kind of bus: what docs/guest.md promises of them.

Each boot takes about six seconds without KVM, so each one checks several things; together they meet every firmware and
every bus, with the distribution's kernel and its modules. What builds such disks has tests of its own.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.guest_bench import BUSYBOX, MIB, Bench, connect, ended
from uhm_builder.export.portable import Portable, compose_portable
from uhm_builder.images import ImageConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

pytestmark = pytest.mark.integration
pytest_plugins = ("tests.integration.guest_bench",)

OVMF = Path("/usr/share/OVMF")
GIB = 1 << 30
SECTOR = 512
BOOT_SECONDS = 60.0
FIRMWARE = {
    "SeaBIOS": (),
    "OVMF": ("-drive", f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF}/OVMF_CODE.fd"),
}
BUSES = {
    "virtio-blk": ("-M", "pc", "-device", "virtio-blk-pci,drive=disk"),
    "ahci": ("-M", "q35", "-device", "ide-hd,drive=disk,bus=ide.0"),
    "ide": ("-M", "pc", "-device", "ide-hd,drive=disk,bus=ide.0"),
    "nvme": ("-M", "q35", "-device", "nvme,drive=disk,serial=uhm"),
    "virtio-scsi": ("-M", "pc", "-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk"),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running QEMU that was given nothing but a disk, and what its serial line says."""

    directory: Path
    qemu: subprocess.Popen[bytes]

    def console(self) -> str:
        """All of it so far, as lines end elsewhere."""
        return (self.directory / "serial.log").read_text(errors="replace").replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while text not in self.console():
            assert self.qemu.poll() is None, f"the machine ended without {text!r}:\n{self.console()}"
            assert time.monotonic() < deadline, f"no {text!r}:\n{self.console()}"
            time.sleep(0.05)

    def press_button(self) -> None:
        self._tell("system_powerdown")

    def press(self, *keys: str) -> None:
        """Press keys of the keyboard, one after the other, as QEMU calls them."""
        for key in keys:
            self._tell(f"sendkey {key}")

    def _tell(self, command: str) -> None:
        with connect(self.directory / "monitor") as monitor:
            monitor.sendall(f"{command}\n".encode())
            monitor.recv(4096)
            time.sleep(0.1)  # closed at once, the monitor would not read it

    def end(self) -> str:
        """Wait until it has powered off; return what it has said."""
        assert self.qemu.wait(BOOT_SECONDS) == 0
        assert "reboot: Power down" in self.console()
        return self.console()


@contextmanager
def booted(disk: Path, directory: Path, *, firmware: str, bus: str, devices: Sequence[str] = ()) -> Iterator[Machine]:
    """Boot a raw disk, which keeps what is written to it; `devices` are QEMU's arguments for more of them."""
    if firmware == "OVMF" and not OVMF.is_dir():
        pytest.skip("no OVMF")
    (directory / "monitor").unlink(missing_ok=True)
    (directory / "serial.log").write_bytes(b"")
    argv = ["qemu-system-x86_64", "-cpu", "max", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config"]
    argv += ["-display", "none", "-no-reboot", "-vga", "std", "-serial", f"file:{directory}/serial.log"]
    argv += ["-monitor", f"unix:{directory}/monitor,server=on,wait=off", *FIRMWARE[firmware], *BUSES[bus]]
    argv += ["-drive", f"if=none,id=disk,format=raw,file={disk}", *devices]
    with ended(subprocess.Popen(argv)) as qemu:
        connect(directory / "monitor").close()
        yield Machine(directory=directory, qemu=qemu)


def export(
    bench: Bench, directory: Path, layers: Sequence[str], config: ImageConfig, *, seal: bool = False
) -> tuple[Path, Portable]:
    """Make a raw disk of an image."""
    with bench.store.stage() as stage:
        portable = compose_portable(bench.store, bench.base, layers, config, directory=stage, seal=seal)
        disk = directory / "disk.raw"
        convert = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(portable.descriptor), str(disk)]
        subprocess.run(convert, check=True, timeout=60)
        return disk, portable


def shell_image(
    bench: Bench, script: str, files: Mapping[str, bytes] | None = None, *, user: str = "", env: tuple[str, ...] = ()
) -> tuple[list[str], ImageConfig]:
    """A layer with busybox and two users, one with these files, and a configuration that runs the script."""
    passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv/web:/bin/sh\n"
    names = ("sh", "cat", "chmod", "date", "df", "id", "ls", "mkdir", "sed", "sleep", "wc")
    tools = {f"bin/{name}": "busybox" for name in names}
    bottom = {"bin": None, "bin/busybox": BUSYBOX.read_bytes(), **tools, "etc": None, "etc/passwd": passwd}
    config = ImageConfig(
        entrypoint=("/bin/sh", "-c"), cmd=(script,), user=user, env=env, working_dir="/srv", stop_signal="SIGUSR1"
    )
    return [bench.layer(bottom), bench.layer(dict(files or {"etc/top": b""}))], config


def offset_of(portable: Portable, label: str, *, number: int = 0) -> int:
    """Where on the disk a partition begins; of several with this label, the one of this number."""
    position, found = MIB, []
    for partition in portable.partitions:
        found += [position] if partition.label == label else []
        position += partition.size
    return found[number]


def flip(disk: Path, offset: int) -> None:
    """Change one bit."""
    with disk.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def valid_tables(disk: Path) -> list[int]:
    """The sectors of the two headers of a partition table that are valid by their checksums."""
    last = disk.stat().st_size // SECTOR - 1
    valid = []
    with disk.open("rb") as file:
        for sector in (1, last):
            file.seek(sector * SECTOR)
            header = bytearray(file.read(92))
            (checksum, here) = struct.unpack_from("<I4xQ", header, 16)
            entries_at, count, size, entries_checksum = struct.unpack_from("<QIII", header, 72)
            header[16:20] = bytes(4)
            file.seek(entries_at * SECTOR)
            if (zlib.crc32(header), here) == (checksum, sector) and zlib.crc32(
                file.read(count * size)
            ) == entries_checksum:
                valid.append(sector)
    return valid


def relabel(disk: Path, number: int, label: str) -> None:
    """Give a partition another label, in the first copy of the table."""
    with disk.open("r+b") as file:
        file.seek(SECTOR)
        header = bytearray(file.read(92))
        entries_at, count, size = struct.unpack_from("<QII", header, 72)
        file.seek(entries_at * SECTOR)
        entries = bytearray(file.read(count * size))
        start = (number - 1) * size + 56
        entries[start : start + 72] = label.encode("utf-16-le").ljust(72, b"\0")
        struct.pack_into("<I", header, 88, zlib.crc32(entries))
        header[16:20] = bytes(4)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        file.seek(SECTOR)
        file.write(header)
        file.seek(entries_at * SECTOR)
        file.write(entries)


def test_it_runs_its_image_grows_and_keeps_what_it_writes(bench: Bench, directory: Path) -> None:
    script = (
        "echo as $(id -u):$(id -g) in $PWD with $A; echo id $(cat /etc/machine-id); echo at $(date +%s)"
        "; echo size $(df -m / | sed -n 's/^overlay *\\([0-9]*\\).*/\\1/p'); echo boot >> /data/boots"
        "; echo boots $(wc -l < /data/boots); trap 'echo asked; exit 7' USR1; echo serving"
        "; while :; do sleep 0.05; done"
    )
    first = b"#!/bin/sh\necho first boot as $(id -u)\nmkdir /data; chmod 777 /data\n"
    files = {"etc/uhmalguhm/first-boot.d/10-data": first}
    layers, config = shell_image(bench, script, files, user="web", env=("A=1 2",))
    disk, portable = export(bench, directory, layers, config)
    before = disk.stat().st_size
    os.truncate(disk, 20 * GIB)
    ids = []
    for turn, (firmware, bus) in enumerate([("SeaBIOS", "virtio-blk"), ("OVMF", "ahci")], start=1):
        if turn == 2:  # as a power cut in the middle of growing would have left it
            assert valid_tables(disk) == [1, 20 * GIB // SECTOR - 1], "both copies moved, neither left behind"
            flip(disk, SECTOR + 56)
            assert valid_tables(disk) == [20 * GIB // SECTOR - 1]
        with booted(disk, directory, firmware=firmware, bus=bus) as machine:
            machine.wait_for("serving\n")
            machine.press("scroll_lock", "ctrl-s", "ctrl-alt-delete")  # which neither stop the output nor reset it
            machine.press_button()
            said = machine.end()
        assert "as 101:102 in /srv with 1 2\n" in said, said
        assert ("first boot as 0\n" in said) == (turn == 1), said
        assert f"boots {turn}\n" in said, said
        assert "asked\n" in said, said
        assert re.search(r"uhm: \S+ exit 7\n", said), said
        ids += re.findall(r"^id ([0-9a-f]{32})$", said, re.MULTILINE)
        (at,) = re.findall(r"^at (\d+)$", said, re.MULTILINE)
        assert abs(int(at) - datetime.now(UTC).timestamp()) < 60
        (size,) = re.findall(r"^size (\d+)$", said, re.MULTILINE)
        assert int(size) > (20 * GIB - before) / MIB + 9000, said
    assert len(ids) == 2
    assert len(set(ids)) == 1, "the same machine"
    assert valid_tables(disk) == [1, 20 * GIB // SECTOR - 1]
    check = ["e2fsck", "-f", "-n", f"{disk}?offset={offset_of(portable, 'uhm-state')}"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workload_that_ignores_the_button_is_killed(tuned_bench: Bench, directory: Path) -> None:
    layers, config = shell_image(tuned_bench, "trap '' USR1; echo serving; while :; do sleep 0.05; done")
    disk, _ = export(tuned_bench, directory, layers, config)
    with booted(disk, directory, firmware="SeaBIOS", bus="ide") as machine:
        machine.wait_for("serving\n")
        machine.press_button()
        said = machine.end()
    asked, killed = re.findall(r"^\[ *(\S+)\] uhm: power button: signal (?:10|9)$", said, re.MULTILINE)
    assert 9 < float(killed) - float(asked) < 15
    assert re.search(r"uhm: \S+ exit 137\n", said), said


def test_a_sealed_disk_runs_until_it_meets_what_was_not_sealed(bench: Bench, directory: Path) -> None:
    """The marker is met late: the layer still mounts, and the file is read only when the workload asks for it."""
    marker, content = b"a mark to find the file by", bytes(MIB)
    script = "ls /deep; echo serving; cat /deep/file > /dev/null; echo read; sleep 1000"
    layers, config = shell_image(bench, script, {"deep": None, "deep/file": marker + content})
    disk, portable = export(bench, directory, layers, config, seal=True)
    assert portable.root_hash
    with booted(disk, directory, firmware="OVMF", bus="nvme") as machine:
        machine.wait_for("read\n")
    layer = offset_of(portable, "uhm-layer", number=1)
    with disk.open("rb") as file:
        file.seek(layer)
        found = file.read(4 * MIB).find(marker)
    assert found > 0
    flip(disk, layer + found + 512 * 1024)
    with booted(disk, directory, firmware="SeaBIOS", bus="virtio-scsi") as machine:
        said = machine.end()
    assert "serving\n" in said, said
    assert "read\n" not in said, said
    assert re.search(r"uhm: error: what is on the disk is not what was sealed \(dm-\d+\)\n", said), said


@pytest.mark.parametrize(
    ("label", "offset", "complaint"),
    [
        ("uhm-config", 100, "reading the configuration in /dev/dm-0: "),
        ("uhm-layer", 1024, r"mounting /dev/dm-\d+ \(erofs\) at /\d: "),
    ],
)
def test_a_sealed_disk_that_was_changed_does_not_start(
    tuned_bench: Bench, directory: Path, label: str, offset: int, complaint: str
) -> None:
    layers, config = shell_image(tuned_bench, "echo serving")
    disk, portable = export(tuned_bench, directory, layers, config, seal=True)
    flip(disk, offset_of(portable, label) + offset)
    with booted(disk, directory, firmware="SeaBIOS", bus="virtio-blk") as machine:
        said = machine.end()
    assert re.search(rf"uhm: error: {complaint}", said), said
    assert "serving\n" not in said


@pytest.mark.parametrize("labels", [{4: "data"}, {2: "uhm-layer", 3: "uhm-base"}], ids=["hidden", "exchanged"])
def test_labels_that_are_changed_are_noticed(tuned_bench: Bench, directory: Path, labels: dict[int, str]) -> None:
    """The table itself is not sealed: other labels would take a layer away, or put one below the base."""
    layers, config = shell_image(tuned_bench, "echo serving")
    disk, portable = export(tuned_bench, directory, layers, config, seal=True)
    assert [partition.label for partition in portable.partitions[1:4]] == ["uhm-base", "uhm-layer", "uhm-layer"]
    for number, label in labels.items():
        relabel(disk, number, label)
    with booted(disk, directory, firmware="SeaBIOS", bus="virtio-blk") as machine:
        said = machine.end()
    assert "error: the disk is sealed, but its partitions are not those that the seal is over\n" in said, said
