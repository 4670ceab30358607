from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from uhm_machines.machine import Accelerator, PortMapping, Transport
from uhm_machines.qemu.argv import (
    BootFiles,
    ExportedDisk,
    Hardware,
    Sockets,
    build_argv,
    build_probe_argv,
    quoted,
)

BOOT = BootFiles(
    kernel=Path("/a/vmlinux"), kernel_version="6.1", initramfs=Path("/a/initramfs"), command_line="rdinit=/init"
)
HARDWARE = Hardware(accelerator=Accelerator.TCG, tsc_khz=2596138, memory_mib=512, vcpus=2)
DISK = ExportedDisk(socket="../../exports/nbd.sock", export="abc", overlay="disk.qcow2")


def argv(ports=(), **changes: Any):
    fields: dict[str, Any] = {
        "boot": BOOT,
        "hardware": HARDWARE,
        "disk": DISK,
        "sockets": Sockets(qmp=7, control=8),
    } | changes
    return build_argv("qemu", ports=ports, **fields)


def values(arguments, option):
    return [value for flag, value in pairwise(arguments) if flag == option]


def test_the_board():
    arguments = argv()
    assert arguments[0] == "qemu"
    assert values(arguments, "-machine") == ["microvm,accel=tcg,acpi=on,pit=off,pic=off,rtc=on,isa-serial=off"]
    assert values(arguments, "-append") == [
        "rdinit=/init console=hvc0 tsc_early_khz=2596138 tsc=reliable no_timer_check"
    ]
    assert (values(arguments, "-m"), values(arguments, "-smp")) == (["512"], ["2"])
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(arguments)
    assert values(arguments, "-sandbox")[0].startswith("on,")


@pytest.mark.parametrize(("accelerator", "cpu"), [(Accelerator.TCG, "max"), (Accelerator.KVM, "host")])
def test_the_processor_follows_the_accelerator(accelerator, cpu):
    hardware = Hardware(accelerator=accelerator, tsc_khz=1, memory_mib=64, vcpus=1)
    assert values(argv(hardware=hardware), "-cpu") == [cpu]
    assert values(build_probe_argv("qemu", boot=BOOT, hardware=hardware), "-cpu") == [cpu]


def test_the_guest_finds_its_ports_in_the_order_of_the_contract():
    devices = [value for value in values(argv(), "-device") if not value.startswith(("virtio-blk", "virtio-net"))]
    assert devices == [
        "virtio-serial-device",
        "virtconsole,chardev=console",
        "virtserialport,chardev=control,name=uhm.control",
        "virtserialport,chardev=events,name=uhm.events",
        "virtserialport,chardev=output,name=uhm.output",
    ]


def test_files_are_appended_to_and_sockets_inherited():
    chardevs = values(argv(), "-chardev")
    assert "file,id=output,path=output,append=on" in chardevs
    assert "file,id=events,path=events,append=on" in chardevs
    assert "socket,id=qmp,fd=7,server=on,wait=off" in chardevs
    assert "socket,id=control,fd=8,server=on,wait=off" in chardevs


def test_the_disk_is_an_overlay_over_the_export_that_waits_for_it():
    image, overlay = values(argv(), "-blockdev")
    assert "driver=nbd,node-name=image,read-only=on" in image
    assert "server.path=../../exports/nbd.sock,export=abc,reconnect-delay=" in image
    assert "backing=image" in overlay
    assert "discard=unmap" in overlay


def test_ports_are_forwarded():
    ports = (
        PortMapping(host_address="127.0.0.1", host_port=8080, guest_port=80),
        PortMapping(host_address="0.0.0.0", host_port=53, guest_port=53, transport=Transport.UDP),
    )
    assert values(argv(ports), "-netdev") == [
        "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:53"
    ]


def test_commas_in_paths_are_doubled():
    assert quoted("a,b") == "a,,b"
    odd = ExportedDisk(socket="x,y/nbd.sock", export="abc", overlay="disk.qcow2")
    assert "server.path=x,,y/nbd.sock" in values(argv(disk=odd), "-blockdev")[0]
