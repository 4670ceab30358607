from dataclasses import fields, replace

import pytest

from tests.unit.machines.stand_ins import BASE, DISK, SHAPE, StandInProbe
from uhm_machines import shape as shaping
from uhm_machines.machine import Accelerator
from uhm_machines.shape import Shape, shape_of

CPUINFO = """processor\t: {number}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: {model}
model name\t: A processor
stepping\t: 7
microcode\t: {microcode}
cpu MHz\t\t: {mhz}
flags\t\t: fpu vme {flags}
"""


@pytest.mark.parametrize("field", [field.name for field in fields(Shape)])
def test_each_field_makes_another_shape(field):
    value = getattr(SHAPE, field)
    other = Accelerator.KVM if field == "accelerator" else value + ("x" if isinstance(value, str) else 100_000)
    assert replace(SHAPE, **{field: other}).digest != SHAPE.digest
    assert replace(SHAPE, **{field: value}).digest == SHAPE.digest


def test_a_clock_that_was_measured_again_is_the_same():
    assert replace(SHAPE, tsc_khz=2_596_124).digest == replace(SHAPE, tsc_khz=2_596_138).digest


@pytest.mark.parametrize(("vcpus", "said"), [(1, "256 MiB and 1 processor"), (2, "256 MiB and 2 processors")])
def test_a_shape_is_told_by_what_can_be_asked_for(vcpus, said):
    assert str(replace(SHAPE, vcpus=vcpus)) == said


async def test_the_shape_of_a_machine_on_this_host():
    shape = await shape_of(replace(DISK, size=65 << 30), StandInProbe(), memory_mib=512, vcpus=2)
    assert (shape.base, shape.qemu_version, shape.cpu, shape.disk_size) == (BASE, "9.1.0", "max", 128 << 30)
    hardware = shape.hardware
    assert (hardware.accelerator, hardware.tsc_khz, hardware.memory_mib, hardware.vcpus) == (
        Accelerator.TCG, 2_500_000, 512, 2,
    )  # fmt: skip


async def test_images_of_most_sizes_share_a_shape():
    shapes = [
        await shape_of(replace(DISK, size=size), StandInProbe(), memory_mib=256, vcpus=1) for size in (0, 1, 64 << 30)
    ]
    assert len({shape.digest for shape in shapes}) == 1


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"mhz": "3000"}, True),
        ({"model": "86"}, False),
        ({"microcode": "0x2"}, False),
        ({"flags": "avx512f"}, False),
    ],
)
async def test_with_kvm_the_hosts_processor_is_part_of_it(tmp_path, monkeypatch, change, same):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(shaping, "_CPUINFO", path)
    probe = StandInProbe()
    probe.kvm = True
    seen = []
    for changes in ({}, change):
        values = {"number": 0, "model": "85", "microcode": "0x1", "mhz": "2500", "flags": ""} | changes
        path.write_text(f"{CPUINFO.format(**values)}\n{CPUINFO.format(**values | {'number': 1})}\n")
        shaping._cpu.cache_clear()
        shape = await shape_of(DISK, probe, memory_mib=256, vcpus=1)
        assert shape.cpu.startswith("host:")
        seen.append(shape.digest)
    shaping._cpu.cache_clear()
    assert (seen[0] == seen[1]) is same
