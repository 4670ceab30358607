"""Images exported in every format: whole, the same each time, and booting by themselves to the image's page.

A boot takes five to ten seconds without KVM, so that the tests boot each format once, and each firmware with each bus
once. With UHM_TEST_EVERY_DISK=1 every format is booted by both firmwares on every bus.
"""
# ruff: noqa: ASYNC221 - what is tested runs in other processes

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.guest_bench import BUSYBOX, Bench, connect, ended, free_port
from uhm_builder.disk import load_disk
from uhm_builder.errors import InvalidExport, StaleImage, UnfitDisk
from uhm_builder.export.exporter import Exporter
from uhm_builder.export.options import COMPRESSIONS, Compression, DiskFormat, ExportOptions
from uhm_builder.export.portable import compose_portable
from uhm_builder.export.sparse import digest_of
from uhm_builder.export.state import ensure_small_state
from uhm_builder.images import Image, ImageConfig, Status
from uhm_common.artifacts import ArtifactStore
from uhm_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration
pytest_plugins = ("tests.integration.guest_bench",)

OVMF = Path("/usr/share/OVMF")
GIB = 1 << 30
SMALL = 5 * GIB // 4
"""Hardly more than the image and the small state."""
PAGE_SECONDS = 90.0
FIRMWARE = {
    "SeaBIOS": (),
    "OVMF": ("-drive", f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF}/OVMF_CODE.fd"),
}
BUSES = {
    "virtio": ("-device", "virtio-blk-pci,drive=disk"),
    "sata": ("-device", "ide-hd,drive=disk,bus=ide.0"),
    "nvme": ("-device", "nvme,drive=disk,serial=uhm"),
}
COVERING = [
    (DiskFormat.QCOW2, "SeaBIOS", "virtio"),
    (DiskFormat.RAW, "OVMF", "virtio"),
    (DiskFormat.VMDK, "SeaBIOS", "sata"),
    (DiskFormat.VHDX, "OVMF", "sata"),
    (DiskFormat.VPC, "SeaBIOS", "nvme"),
    (DiskFormat.VDI, "OVMF", "nvme"),
    (DiskFormat.OVA, "SeaBIOS", "sata"),
]
BOOTS = list(product(DiskFormat, FIRMWARE, BUSES)) if os.environ.get("UHM_TEST_EVERY_DISK") else COVERING

SERVE = (
    "echo boot >> /data/boots"
    "; echo page of $NAME, boot $(wc -l < /data/boots), $(df -m / | sed -n 's/^overlay *\\([0-9]*\\).*/\\1/p') MiB"
    " > /www/index.html; sync; exec httpd -f -p 80 -h /www"
)


@pytest.fixture(scope="module")
def image(bench: Bench) -> Image:
    """A web server whose page tells how often the disk was booted and how large it is."""
    tools = {f"bin/{name}": "busybox" for name in ("sh", "wc", "df", "sed", "sync", "httpd")}
    layers = (
        bench.layer({"bin": None, "bin/busybox": BUSYBOX.read_bytes(), **tools}),
        bench.layer({"data": None, "www": None, "www/large": os.urandom(3 << 20)}),
    )
    config = ImageConfig(entrypoint=("/bin/sh", "-c"), cmd=(SERVE,), env=("NAME=shop",), stop_signal="SIGKILL")
    return made(bench, layers, config)


def made(bench: Bench, layers: tuple[str, ...], config: ImageConfig) -> Image:
    """An image as the database would have it."""
    return Image(
        number=1,
        id="0" * 32,
        owner="alice",
        reference="registry.example/team/shop:latest",
        status=Status.READY,
        created_at=0,
        disk_digest=bench.disk(*layers).digest,
        config=config,
    )


@pytest.fixture(scope="module")
def composed(bench: Bench, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image's disk before any conversion."""
    directory = tmp_path_factory.mktemp("composed")
    layers = load_disk(bench.store, image.disk_digest).layers
    return compose_portable(bench.store, bench.base, layers, image.config, directory=directory, size=SMALL).descriptor


@pytest.fixture
def exporter(bench: Bench) -> Iterator[Exporter]:
    """Whatever it was asked, it leaves nothing in the store's staging."""
    yield Exporter(artifacts=bench.store, kvm=False, parallel=2)
    assert list(bench.store.root.glob("staging/*")) == []


def options(disk_format: DiskFormat = DiskFormat.QCOW2, **more: object) -> ExportOptions:
    return ExportOptions(format=disk_format, **more)  # type: ignore[arg-type]


async def written(exporter: Exporter, image: Image, wanted: ExportOptions, path: Path) -> str:
    """Exports to a file; answers the digest."""
    async with exporter.exported(image, wanted) as disk:
        assert disk.path.stat().st_size == disk.size
        await asyncio.to_thread(subprocess.run, ["cp", "--sparse=always", disk.path, path], check=True)
        return disk.digest


@contextmanager
def booted(disk: Path, disk_format: str, directory: Path, *, firmware: str, bus: str) -> Iterator[int]:
    """A machine that was given nothing but a disk and a network card; the port of this host that leads to its page."""
    if firmware == "OVMF" and not OVMF.is_dir():
        pytest.skip("no OVMF")
    (directory / "monitor").unlink(missing_ok=True)
    port = free_port()
    argv = ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg", "-m", "256", "-nodefaults"]
    argv += ["-display", "none", "-no-reboot", "-serial", f"file:{directory}/serial.log", *FIRMWARE[firmware]]
    argv += ["-monitor", f"unix:{directory}/monitor,server=on,wait=off", *BUSES[bus]]
    argv += ["-drive", f"if=none,id=disk,format={disk_format},file={disk}"]
    argv += ["-nic", f"user,model=e1000e,hostfwd=tcp:127.0.0.1:{port}-:80"]
    with ended(subprocess.Popen(argv)) as qemu:
        connect(directory / "monitor").close()
        yield port
        with connect(directory / "monitor") as monitor:  # its workload ends, and with it the machine
            monitor.sendall(b"system_powerdown\n")
            assert qemu.wait(PAGE_SECONDS) == 0


def page(port: int, directory: Path) -> str:
    """The page, once it is served. Each try is short: one whose packet is lost costs all of its time."""
    deadline = time.monotonic() + PAGE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
                return str(answer.read().decode())
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < deadline, (directory / "serial.log").read_text(errors="replace")
            time.sleep(0.1)


@pytest.mark.parametrize(("disk_format", "firmware", "bus"), BOOTS)
async def test_each_format_boots_to_the_page(
    exporter: Exporter, image: Image, directory: Path, disk_format: DiskFormat, firmware: str, bus: str
) -> None:
    exported = directory / "exported"
    await written(exporter, image, options(disk_format), exported)
    disk = directory / "elsewhere" / "disk"
    disk.parent.mkdir()
    inside = disk_format
    if disk_format is DiskFormat.OVA:
        disk, inside = unpacked(exported, directory / "elsewhere"), DiskFormat.QCOW2
    else:
        exported.rename(disk)
    if inside in {DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VHDX, DiskFormat.VDI}:  # the others have no check
        subprocess.run(["qemu-img", "check", "-q", "-f", inside, disk], check=True)
    with booted(disk, inside, directory, firmware=firmware, bus=bus) as port:
        assert page(port, directory).startswith("page of shop, boot 1, ")


def unpacked(ova: Path, directory: Path) -> Path:
    """The disk of an appliance as its importer would have it: a stream-optimised vmdk cannot be written to."""
    with tarfile.open(ova) as archive:
        assert archive.getnames() == ["shop.ovf", "shop.mf", "shop.vmdk"]
        disk = archive.extractfile("shop.vmdk")
        assert disk is not None
        (directory / "shop.vmdk").write_bytes(disk.read())
    subprocess.run(["qemu-img", "check", "-q", "-f", "vmdk", directory / "shop.vmdk"], check=True)
    overlay = directory / "disk.qcow2"
    backing = ("-b", directory / "shop.vmdk", "-F", "vmdk")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay], check=True)
    return overlay


async def test_a_resized_disk_is_seen_inside_and_keeps_its_data(
    exporter: Exporter, image: Image, directory: Path
) -> None:
    disk = directory / "disk.qcow2"
    await written(exporter, image, options(compression=Compression.ZSTD, seal=True), disk)
    subprocess.run(["qemu-img", "resize", "-q", disk, "20G"], check=True)

    for turn in (1, 2):
        with booted(disk, "qcow2", directory, firmware="SeaBIOS", bus="virtio") as port:
            words = page(port, directory).split()
        assert words[:5] == ["page", "of", "shop,", "boot", f"{turn},"]
        assert 19 * 1024 < int(words[5]) < 20 * 1024


@pytest.mark.parametrize(
    ("disk_format", "compression"), [(each, way) for each in COMPRESSIONS for way in COMPRESSIONS[each]]
)
async def test_every_form_is_the_same_twice_and_holds_what_was_composed(
    exporter: Exporter,
    image: Image,
    composed: Path,
    tmp_path: Path,
    disk_format: DiskFormat,
    compression: Compression,
) -> None:
    wanted = options(disk_format, compression=compression, size_bytes=SMALL)
    first = await written(exporter, image, wanted, tmp_path / "first")
    if disk_format is DiskFormat.VPC:  # it has the time in seconds
        await asyncio.sleep(1.1)

    assert await written(exporter, image, wanted, tmp_path / "second") == first
    if disk_format is not DiskFormat.OVA:
        compare = ["qemu-img", "compare", "-f", "vmdk", "-F", disk_format, composed, tmp_path / "first"]
        subprocess.run(compare, check=True, capture_output=True)


async def test_another_image_has_other_identities(
    bench: Bench, exporter: Exporter, image: Image, tmp_path: Path
) -> None:
    """Two disks in one machine must not be taken for one another: of their GPTs no GUID is the same."""
    other = made(bench, (bench.layer({"a": b"1"}),), ImageConfig(cmd=("/bin/sh",)))
    guids = []
    for number, each in enumerate((image, other)):
        await written(exporter, each, options(DiskFormat.RAW), tmp_path / str(number))
        with (tmp_path / str(number)).open("rb") as file:
            table = file.read(1 << 20)
        entries = [table[1024 + at : 1024 + at + 128] for at in range(0, 32 * 128, 128)]
        guids.append({table[512 + 56 : 512 + 72], *(entry[16:32] for entry in entries if any(entry))})
    assert len(guids[0]) >= 6
    assert not guids[0] & guids[1]


async def test_a_sealed_disk_holds_trees_that_verify(exporter: Exporter, image: Image, tmp_path: Path) -> None:
    """As veritysetup(8) sees them, on the disk, with what the configuration and the command line say."""
    disk = tmp_path / "disk.raw"
    await written(exporter, image, options(DiskFormat.RAW, seal=True), disk)
    starts = partition_starts(disk)
    with disk.open("rb") as file:
        config = read(file, starts["uhm-config"][0], 1 << 20)
        boot = read(file, starts["uhm-boot"][0], 64 << 20)
    words = config[16 : 16 + int.from_bytes(config[8:12], "little")].decode().split("\0")[:-1]
    lines = [value.split() for key, value in zip(words[::2], words[1::2], strict=True) if key == "verity"]
    in_order = [start for starts_of in starts.values() for start in starts_of]

    seals = re.findall(rb"uhm\.seal=([0-9a-f]{64})\b", boot)
    assert len(seals) == 2, "one for each loader"
    assert seals[0] == seals[1]
    verify(
        disk,
        data=starts["uhm-config"][0],
        size=1 << 20,
        tree=starts["uhm-config"][0] + (1 << 20),
        root=seals[0].decode(),
    )
    assert len(lines) == 3
    for number, size, hashes, offset, root, salt in lines:
        assert salt == "-"
        data, trees = in_order[int(number) - 1], in_order[int(hashes) - 1]
        verify(disk, data=data, size=int(size), tree=trees + int(offset), root=root)


def verify(disk: Path, *, data: int, size: int, tree: int, root: str) -> None:
    """veritysetup takes data from the beginning of a file only."""
    part = disk.with_name("part")
    with disk.open("rb") as file:
        part.write_bytes(read(file, data, size))
    argv = ["veritysetup", "verify", part, disk, root, f"--hash-offset={tree}", f"--data-blocks={size // 4096}"]
    subprocess.run(argv, check=True, capture_output=True)


def partition_starts(disk: Path) -> dict[str, list[int]]:
    """Where the partitions begin, by label, in the order of the table."""
    with disk.open("rb") as file:
        table = file.read(1 << 20)[1024:]
    starts: dict[str, list[int]] = {}
    for at in range(0, 256 * 128, 128):
        entry = table[at : at + 128]
        if label := entry[56:].decode("utf-16-le").rstrip("\0"):
            starts.setdefault(label, []).append(int.from_bytes(entry[32:40], "little") * 512)
    return starts


def read(file: object, offset: int, size: int) -> bytes:
    file.seek(offset)  # type: ignore[attr-defined]
    return bytes(file.read(size))  # type: ignore[attr-defined]


async def test_what_libguestfs_finds_is_told(exporter: Exporter, image: Image) -> None:
    async with exporter.exported(image, options(DiskFormat.VHDX, seal=True, verify=True)) as disk:
        told = "\n".join(disk.findings)
    assert "partition table: gpt, 7 partitions" in told
    assert "loader for BIOS" in told
    assert "loader for UEFI" in told
    assert "partition 3: uhm-layer, erofs" in told
    assert told.endswith("command: /bin/sh")


async def test_a_disk_that_would_have_nothing_to_run_is_not_handed_out(bench: Bench, exporter: Exporter) -> None:
    """The command exists, but it is a link out of the image, and what it leads to is not in the image."""
    image = made(
        bench, (bench.layer({"bin": None, "bin/run": "/../../init"}),), ImageConfig(cmd=("run",), env=("PATH=/bin",))
    )
    with pytest.raises(UnfitDisk, match="'run', is not an executable file"):
        async with exporter.exported(image, options(verify=True)):
            pass


async def test_a_size_is_met_or_refused(exporter: Exporter, image: Image, tmp_path: Path) -> None:
    await written(exporter, image, options(size_bytes=3 * GIB), tmp_path / "disk")
    shown = subprocess.run(["qemu-img", "info", tmp_path / "disk"], check=True, capture_output=True, text=True)
    assert f"({3 * GIB} bytes)" in shown.stdout
    with pytest.raises(InvalidExport, match="is too small: the image needs"):
        await written(exporter, image, options(size_bytes=GIB), tmp_path / "small")


async def test_a_layer_that_was_deleted_ends_it(bench: Bench, exporter: Exporter) -> None:
    layer = bench.layer({"gone": b"1"})
    image = made(bench, (layer,), ImageConfig(cmd=("/gone",)))
    bench.store.layer(layer).unlink()
    with pytest.raises(NotFound, match="Make the image again"):
        async with exporter.exported(image, options()):
            pass


async def test_who_goes_away_takes_the_work_along(exporter: Exporter, image: Image) -> None:
    """Also while qemu-img runs, which ends with it; what waits for its turn is let in."""

    async def hold(wanted: ExportOptions, inside: asyncio.Event) -> None:
        async with exporter.exported(image, wanted):
            inside.set()
            await asyncio.sleep(60)

    events = [asyncio.Event() for _ in range(3)]
    holding = [asyncio.create_task(hold(options(), event)) for event in events]
    await asyncio.wait_for(asyncio.gather(events[0].wait(), events[1].wait()), 60)
    await asyncio.sleep(0.2)
    assert not events[2].is_set(), "two at once is the bound"
    holding[0].cancel()
    await asyncio.wait_for(events[2].wait(), 60)
    converting = asyncio.create_task(hold(options(DiskFormat.OVA), asyncio.Event()))
    for task in holding:
        task.cancel()
    deadline = time.monotonic() + 30
    while not children("qemu-img"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    converting.cancel()
    await asyncio.gather(*holding, converting, return_exceptions=True)
    assert not children("qemu-img")


def children(name: str) -> list[str]:
    """Ids of this process's children that run a program."""
    listing = subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", name], check=False, capture_output=True, text=True)
    return listing.stdout.split()


@pytest.mark.parametrize("seal", [True, False])
def test_a_base_that_was_made_for_no_disks_of_their_own_gives_none(
    bench: Bench, image: Image, tmp_path: Path, seal: bool
) -> None:
    old = replace(bench.base, seal_offsets=())
    with pytest.raises(StaleImage, match="Make it again"):
        compose_portable(bench.store, old, (), image.config, directory=tmp_path, seal=seal)


def test_a_small_state_is_the_same_whenever_it_is_made(bench: Bench, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        store = ArtifactStore(tmp_path / name)
        store.base(bench.base.digest).mkdir(parents=True)
        digests.add(digest_of(ensure_small_state(store, bench.base)))
        time.sleep(1.1)  # ext4 counts seconds
    assert len(digests) == 1
