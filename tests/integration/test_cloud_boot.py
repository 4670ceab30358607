"""Volumes with metadata beside disks that boot by themselves: what docs/portable.md promises, in real machines."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.integration.guest_bench import connect, free_port
from tests.integration.test_portable_guest import booted, export, shell_image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.integration.guest_bench import Bench

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("xorriso") or not shutil.which("mcopy"), reason="needs xorriso and mtools"),
]
pytest_plugins = ("tests.integration.guest_bench",)

FETCH_SECONDS = 30.0
SCRIPT = """
/bin/busybox hostname; cat /etc/resolv.conf
id alice; ls -ln /home/alice/.ssh/authorized_keys; cat /home/alice/.ssh/authorized_keys /etc/made
/bin/busybox ip -o -4 address; /bin/busybox ip route
mkdir -p /site; echo page > /site/index.html; ln -sf /etc/resolv.conf /site/; echo serving
exec /bin/busybox httpd -f -p 80 -h /site
"""
NOCLOUD = {
    "meta-data": "instance-id: first\nlocal-hostname: shop.example.org\n",
    "user-data": """#cloud-config
users: [{name: alice, groups: [wheel], ssh_authorized_keys: [ssh-ed25519 AAAA alice]}]
write_files: [{path: /etc/made, content: "by cloud-init\\n"}]
runcmd: [echo ran $(id -u)]
""",
    "network-config": """
version: 2
ethernets:
  any:
    match: {macaddress: '52:54:00:12:34:56'}
    addresses: [10.0.2.77/24]
    gateway4: 10.0.2.2
    nameservers: {addresses: [10.0.2.3, 192.0.2.1]}
""",
}
CONFIG_DRIVE = {
    "openstack/latest/meta_data.json": '{"uuid": "second", "hostname": "drive.novalocal"}',
    "openstack/latest/user_data": "#!/bin/sh\necho script $(id -u)\n",
}


def write(directory: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


def make_iso(directory: Path, files: Mapping[str, str]) -> Path:
    """NoCloud's volume, as `cloud-localds` and hypervisors make it."""
    source, image = write(directory / "nocloud", files), directory / "nocloud.iso"
    options = ("-output", image, "-volid", "cidata", "-joliet", "-rock")
    subprocess.run(["xorriso", "-as", "genisoimage", "-quiet", *options, source], check=True, timeout=30)
    return image


def make_fat(directory: Path, files: Mapping[str, str]) -> Path:
    """A config drive on FAT."""
    source, image = write(directory / "drive", files), directory / "drive.img"
    mkfs = ["/usr/sbin/mkfs.vfat", "-C", "-n", "config-2", image, "4096"]
    subprocess.run(mkfs, check=True, timeout=30, capture_output=True)
    subprocess.run(["mcopy", "-i", image, "-s", source / "openstack", "::"], check=True, timeout=30)
    return image


def fetch(port: int, path: str = "") -> str:
    """Ask the machine for a page, patiently: the forwarded port takes connections before anyone listens."""
    deadline = time.monotonic() + FETCH_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=2) as page:
                return str(page.read().decode())
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def command(monitor: Path, line: str) -> None:
    """Have QEMU's monitor do something; it has been done when the next prompt comes."""
    with connect(monitor) as connection, connection.makefile("rwb") as lines:
        lines.write(f"{line}\n".encode())
        lines.flush()
        said = b""
        while said.count(b"(qemu) ") < 2:
            said += lines.read1()


def without_events(console: str) -> str:
    """What was said, without the lines of the kernel's log, which come in between."""
    return "".join(line for line in console.splitlines(keepends=True) if not line.startswith("["))


def card(port: int, address: str, model: str) -> tuple[str, ...]:
    forward = f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-{address}:80"
    return ("-netdev", forward, "-device", f"{model},netdev=net,mac=52:54:00:12:34:56")


def test_volumes_with_metadata_make_a_disk_a_machine_of_its_own(bench: Bench, directory: Path) -> None:
    """The second boot is that of another instance, with other firmware and hardware, and a network that comes late."""
    layers, config = shell_image(bench, SCRIPT)
    disk, _ = export(bench, directory, layers, config)
    port = free_port()
    iso = f"if=none,id=iso,media=cdrom,readonly=on,format=raw,file={make_iso(directory, NOCLOUD)}"
    devices = ("-drive", iso, "-device", "ide-cd,drive=iso", *card(port, "10.0.2.77", "e1000"))
    with booted(disk, directory, firmware="SeaBIOS", bus="virtio-blk", devices=devices) as machine:
        machine.wait_for("serving\n")
        said = without_events(machine.console())
        assert "10.0.2.77/24" in said, said
        assert fetch(port) == "page\n"
    assert "ran 0\nshop\nnameserver 10.0.2.3\nnameserver 192.0.2.1\n" in said, said
    assert "uid=1000(alice) gid=1000(alice) groups=1000(alice),1001(wheel)\n-rw-------" in said, said
    assert "ssh-ed25519 AAAA alice\nby cloud-init\n" in said, said
    assert "cloud-init:" not in said, said

    fat = f"if=none,id=fat,format=raw,readonly=on,file={make_fat(directory, CONFIG_DRIVE)}"
    devices = ("-drive", fat, "-device", "virtio-blk-pci,drive=fat", *card(port, "10.0.2.15", "virtio-net-pci"))
    with booted(disk, directory, firmware="OVMF", bus="ahci", devices=devices) as machine:
        command(machine.directory / "monitor", "set_link net off")
        machine.wait_for("serving\n")
        said = without_events(machine.console())
        command(machine.directory / "monitor", "set_link net on")
        assert fetch(port, "resolv.conf") == "nameserver 10.0.2.3\n"
    assert "cloud-init: network: no DHCP server has answered in 10 s; one that answers later is heeded\n" in said, said
    assert "script 0\ndrive\nnameserver " in said, said
    assert "ran 0\n" not in said, said
    assert "ssh-ed25519 AAAA alice\nby cloud-init\n" in said, said
