"""What disks that boot by themselves load: drivers by the device that wants them, in order, each file once."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.unit.guest.test_initramfs import unpack
from uhm_guest.initramfs import MODULES
from uhm_guest.kernel import Kernel, module_aliases
from uhm_guest.portable import boot_modules, build_portable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """One that has AHCI, its layers below, verity and one file system as modules, and what a first initramfs holds."""
    modules = tmp_path / "modules"
    (modules / "k").mkdir(parents=True)
    needs = dict.fromkeys(MODULES, "")
    needs |= {
        "scsi_mod": "",
        "libata": " k/scsi_mod.ko",
        "ahci": " k/libata.ko k/scsi_mod.ko",
        "sd_mod": " k/scsi_mod.ko",
    }
    needs |= {"dm-mod": "", "dm-verity": " k/dm-mod.ko", "isofs": "", "virtio_scsi": " k/virtio_pci.ko k/scsi_mod.ko"}
    (modules / "modules.dep").write_text("".join(f"k/{name}.ko:{needed}\n" for name, needed in needs.items()))
    for name in needs:
        (modules / f"k/{name}.ko").write_text(name)
    (modules / "modules.builtin").write_text("kernel/crypto/crc32c_generic.ko\nkernel/drivers/nvme/host/nvme.ko\n")
    (modules / "modules.alias").write_text(
        "# Aliases extracted from modules themselves.\n"
        "alias pci:v*d*sv*sd*bc01sc06i01* ahci\nalias pci:v00001B4Bd00009170sv*sd*bc*sc*i* ahci\n"
        "alias scsi:t-0x00* sd_mod\nalias virtio:d00000008v* virtio_scsi\n"
    )
    return Kernel(version="6.1", image=tmp_path / "vmlinuz", modules=modules)


def packed(kernel: Kernel, programs: Path | None = None) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(build_portable(kernel, programs))) as archive:
        return unpack(archive.read())


def test_the_list_says_what_is_loaded_for_whom(kernel: Kernel) -> None:
    entries = packed(kernel)
    assert entries["portable/modules.list"][1].decode().splitlines() == [
        (
            "/portable/m/scsi_mod.ko /portable/m/libata.ko /portable/m/ahci.ko"
            " : pci:v*d*sv*sd*bc01sc06i01* pci:v00001B4Bd00009170sv*sd*bc*sc*i*"
        ),
        "/portable/m/scsi_mod.ko /portable/m/virtio_scsi.ko : virtio:d00000008v*",
        "/portable/m/scsi_mod.ko /portable/m/sd_mod.ko : scsi:t-0x00*",
        "/portable/m/isofs.ko : portable",
        "/portable/m/dm-mod.ko /portable/m/dm-verity.ko : seal",
    ]
    named = {name.removeprefix("portable/m/") for name in entries if name.startswith("portable/m/")}
    assert named == {
        "scsi_mod.ko", "libata.ko", "ahci.ko", "virtio_scsi.ko", "sd_mod.ko", "isofs.ko", "dm-mod.ko", "dm-verity.ko",
    }, "what the first initramfs loads, and what is built in, is left out"  # fmt: skip
    assert entries["portable/m/ahci.ko"][1] == b"ahci"


def test_programs_come_along(kernel: Kernel, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    (programs / "directory").mkdir(parents=True)
    (programs / "cloud").write_text("a program")
    (programs / "cloud").chmod(0o755)
    (programs / "settings").write_text("text")
    entries = packed(kernel, programs)
    assert entries["portable/cloud"][:2] == (0o100755, b"a program")
    assert entries["portable/settings"][:2] == (0o100644, b"text")
    assert "portable/directory" not in entries


def test_a_kernel_without_modules_brings_none(tmp_path: Path) -> None:
    """It is one of ours, which need not unpack; the directory is how init knows who has started it."""
    kernel = Kernel(version="6.1", image=tmp_path / "bzImage", modules=None)
    assert list(unpack(build_portable(kernel, tmp_path / "absent"))) == ["portable"]


def test_the_same_content_gives_the_same_bytes(kernel: Kernel) -> None:
    assert build_portable(kernel, None) == build_portable(kernel, None)


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("modules.builtin", "", MODULES),
        ("modules.dep", "k/crc32c_generic.ko:\n", ("crc32c_generic", *MODULES)),
    ],
)
def test_a_checksum_that_is_a_module_comes_first(
    kernel: Kernel, file: str, line: str, expected: tuple[str, ...]
) -> None:
    assert kernel.modules is not None
    (kernel.modules / file).write_text((kernel.modules / file).read_text() + line)
    assert boot_modules(kernel) == expected


def test_aliases_are_read_by_module(kernel: Kernel) -> None:
    aliases = module_aliases(kernel)
    assert aliases["sd_mod"] == ("scsi:t-0x00*",)
    assert len(aliases["ahci"]) == 2
    assert module_aliases(Kernel(version="6.1", image=kernel.image, modules=None)) == {}
