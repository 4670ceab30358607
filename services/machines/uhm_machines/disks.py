"""Disks: what the builder has recorded of an image's, and a machine's own over it.

The records are `disk.json` and `base.json` in the artifact store; the layout is described in uhm_common.artifacts.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uhm_common.artifacts import plain_digest
from uhm_common.errors import NotFound
from uhm_common.process import run
from uhm_machines.qemu.argv import BootFiles

if TYPE_CHECKING:
    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.files import MachineFiles

__all__ = [
    "ImageDisk",
    "create_overlay",
    "export_name",
    "read_boot_files",
    "read_image_disk",
]

_QEMU_IMG_SECONDS: Final = 30.0
_KNOWN_DISKS: Final = 256
_LEAST_SIZE: Final = 64 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDisk:
    """An image's disk, and what boots it."""

    digest: str
    size: int
    """Virtual, in bytes."""
    boot: BootFiles

    @property
    def machine_size(self) -> int:
        """The size of a machine's disk over it: one for nearly all images, so that a template serves them all."""
        size = _LEAST_SIZE
        while size < self.size:
            size *= 2
        return size


@lru_cache(_KNOWN_DISKS)
def read_image_disk(store: ArtifactStore, digest: str) -> ImageDisk:
    """Reads what is recorded of a disk and of its base. Raises NotFound where either is not in the store.

    What is recorded under a digest never changes, so it is read once; a lease shows whether the disk is still there.
    """
    disk = _read_record(store.disk(digest) / "disk.json")
    boot = read_boot_files(store.base(str(disk["base"])))
    return ImageDisk(digest=digest, size=int(disk["size"]), boot=boot)


def read_boot_files(base: Path) -> BootFiles:
    """What boots machines, from the directory of a base. Raises NotFound."""
    record = _read_record(base / "base.json")
    return BootFiles(
        base=str(record["digest"]),
        kernel=(base / "vmlinux").absolute(),
        kernel_version=str(record["kernel_version"]),
        initramfs=(base / "initramfs").absolute(),
        command_line=str(record["command_line"]),
    )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise NotFound(
            f"{path.name} of the image's disk is not there any more.", hint="Make the image again."
        ) from None
    return record


def export_name(digest: str) -> str:
    """The name that an image's disk is exported under."""
    return plain_digest(digest)


def _image_address(digest: str, *, socket: str) -> str:
    """Where an image's disk is exported, as a qcow2 names what lies under it. `socket` is relative to the qcow2."""
    return f"nbd+unix:///{export_name(digest)}?socket={socket}"


def create_overlay(files: MachineFiles, disk: ImageDisk, *, socket: str) -> None:
    """Makes a machine's empty qcow2 (QEMU's docs/interop/qcow2) over the image's exported disk, or over `below`.

    `socket` is the export's, relative to the machine's directory. The reference in the file is for tools; a machine's
    QEMU is told explicitly what lies below.
    """
    cloned = files.below.exists()
    content = _empty_qcow2(
        files.below.name if cloned else _image_address(disk.digest, socket=socket),
        "qcow2" if cloned else "raw",
        disk.machine_size,
    )
    staged = files.disk.with_suffix(".new")
    staged.write_bytes(content)
    staged.rename(files.disk)


@lru_cache(_KNOWN_DISKS)
def _empty_qcow2(below: str, kind: str, size: int) -> bytes:
    """An empty overlay, as qemu-img makes it, and once only: it is the same for all machines of an image."""
    with tempfile.TemporaryDirectory(prefix="uhm-qcow2-") as directory:
        path = Path(directory, "empty.qcow2")
        run(
            ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", kind, "-b", below, path, str(size)],
            timeout=_QEMU_IMG_SECONDS,
        )
        return path.read_bytes()
