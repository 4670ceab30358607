"""Disks: what the builder has recorded of an image's, and a machine's own over it.

The records are `disk.json` and `base.json` in the artifact store; the layout is described in uhm_common.artifacts.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uhm_common.artifacts import plain_digest
from uhm_common.errors import NotFound
from uhm_common.process import run
from uhm_machines.qemu.argv import BootFiles

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_common.artifacts import ArtifactStore

__all__ = ["ImageDisk", "create_overlay", "export_name", "read_boot_files", "read_image_disk"]

_QEMU_IMG_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDisk:
    """An image's disk, and what boots it."""

    digest: str
    size: int
    """Virtual, in bytes."""
    boot: BootFiles


def read_image_disk(store: ArtifactStore, digest: str) -> ImageDisk:
    """Reads what is recorded of a disk and of its base. Raises NotFound where either is not in the store."""
    disk = _read_record(store.disk(digest) / "disk.json")
    boot = read_boot_files(store.base(str(disk["base"])))
    return ImageDisk(digest=digest, size=int(disk["size"]), boot=boot)


def read_boot_files(base: Path) -> BootFiles:
    """What boots machines, from the directory of a base. Raises NotFound."""
    record = _read_record(base / "base.json")
    return BootFiles(
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


async def create_overlay(path: Path, disk: ImageDisk, *, socket: str) -> None:
    """Makes an empty qcow2 (QEMU's docs/interop/qcow2) over an image's exported disk; takes 20 ms.

    `socket` is the export's, relative to the overlay's directory, where QEMU runs. The reference in the file is for
    tools; a machine's QEMU is told explicitly what lies below.
    """
    backing = f"nbd+unix:///{export_name(disk.digest)}?socket={socket}"
    staged = path.with_suffix(".new")
    argv: list[str | Path] = [
        "qemu-img",
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        backing,
        staged,
        str(disk.size),
    ]
    await asyncio.to_thread(run, argv, timeout=_QEMU_IMG_SECONDS)
    staged.rename(path)
