import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.machines.stand_ins import BOOT
from uhm_machines.machine import Accelerator
from uhm_machines.qemu import argv as qemu_argv
from uhm_machines.qemu.argv import Hardware, MemoryFile, Sockets, build_argv, build_probe_argv, device_signature
from uhm_machines.qemu.blocks import blank, disk_over, image

HARDWARE = Hardware(accelerator=Accelerator.TCG, tsc_khz=2596138, memory_mib=512, vcpus=2)
CLOCK = "console=hvc0 tsc_early_khz=2596138 tsc=reliable no_timer_check"


def argv(**changes: Any):
    fields: dict[str, Any] = {
        "boot": BOOT,
        "hardware": HARDWARE,
        "blocks": disk_over(image("../../exports/nbd.sock", "abc"), overlay="disk.qcow2"),
        "sockets": Sockets(qmp=7, control=8),
    } | changes
    return build_argv("qemu", **fields)


def values(arguments, option):
    return [value for flag, value in pairwise(arguments) if flag == option]


def test_the_board():
    arguments = argv()
    assert arguments[0] == "qemu"
    assert values(arguments, "-machine") == ["microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=off,accel=tcg"]
    assert values(arguments, "-append") == [f"rdinit=/init {CLOCK}"]
    assert (values(arguments, "-m"), values(arguments, "-smp")) == (["512"], ["2"])
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(arguments)
    assert values(arguments, "-sandbox")[0].startswith("on,")


@pytest.mark.parametrize(("accelerator", "cpu"), [(Accelerator.TCG, "max"), (Accelerator.KVM, "host")])
def test_the_processor_follows_the_accelerator(accelerator, cpu):
    hardware = Hardware(accelerator=accelerator, tsc_khz=1, memory_mib=64, vcpus=1)
    for arguments in (argv(hardware=hardware), build_probe_argv("qemu", boot=BOOT, hardware=hardware)):
        assert values(arguments, "-cpu") == [cpu]
        assert values(arguments, "-machine")[0].endswith(f",accel={accelerator}")


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


@pytest.mark.parametrize("blocks", [blank(1 << 30), disk_over(image("a,b.sock", "x"), overlay="o", below="u")])
def test_the_nodes_of_the_disk_are_in_order_and_the_device_is_on_the_last(blocks):
    arguments = argv(blocks=blocks)
    assert [json.loads(value) for value in values(arguments, "-blockdev")] == blocks
    assert "virtio-blk-device,drive=disk,discard=on" in values(arguments, "-device")
    assert blocks[-1]["node-name"] == "disk"


def test_the_network_forwards_nothing_by_itself():
    assert values(argv(), "-netdev") == ["user,id=net,ipv6=off"]


def test_a_template_is_told_to_wait():
    assert values(argv(template=True), "-append") == [f"rdinit=/init {CLOCK} uhm.template"]


def test_what_is_restored_waits_for_a_state():
    assert values(argv(incoming=True), "-incoming") == ["defer"]
    assert "-incoming" not in argv()


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_is_the_memory(shared):
    arguments = argv(memory=MemoryFile(path=Path("/s/a,b/memory"), shared=shared))
    assert [json.loads(value) for value in values(arguments, "-object")] == [
        {
            "qom-type": "memory-backend-file",
            "id": "ram",
            "size": 512 << 20,
            "mem-path": "/s/a,b/memory",
            "share": shared,
        }
    ]
    assert values(arguments, "-machine")[0].endswith(",memory-backend=ram")
    assert "memory-backend" not in " ".join(argv())


def test_all_kinds_of_start_have_the_same_devices():
    memory = MemoryFile(path=Path("/m"), shared=False)
    restored = argv(blocks=blank(1), memory=memory, incoming=True)
    assert values(restored, "-device") == values(argv(), "-device")
    assert values(restored, "-chardev") == values(argv(), "-chardev")


@pytest.mark.parametrize(("name", "value"), [("MACHINE", "microvm"), ("_DEVICES", ("virtio-serial-device",))])
def test_another_board_has_another_signature(monkeypatch, name, value):
    before = device_signature()
    assert before == device_signature()
    monkeypatch.setattr(qemu_argv, name, value)
    assert device_signature() != before
