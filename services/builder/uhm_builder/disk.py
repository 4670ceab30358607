"""Composing an image's disk: a partition table and a list of what lies where. Nothing is copied.

The disk is a VMDK descriptor (VMware's Virtual Disk Format 1.1, `twoGbMaxExtentFlat`) whose extents are the base's
partitions and the layers' blobs, where they are in the store. QEMU's block layer, qemu-img and libguestfs read it.
Paths in it are relative, so the store can be moved. docs/guest.md says what the partitions are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uhm_builder.gpt import ALIGNMENT, SECTOR, Partition, PartitionType, Table, build_table
from uhm_common.artifacts import plain_digest
from uhm_common.errors import InternalError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uhm_builder.base import Base
    from uhm_common.artifacts import ArtifactStore

__all__ = ["MAX_LAYERS", "Disk", "compose", "disk_digest", "load_disk"]

MAX_LAYERS = 250
"""As many as the guest mounts; a table has room for these and a few more partitions."""

RECIPE = 1
"""Part of every disk's digest: count it up when the same input shall give another disk."""

_EXTENT_SECTORS = (2 << 30) // SECTOR - ALIGNMENT // SECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """An image's disk, as `disk.json` beside its descriptor says it."""

    digest: str
    base: str
    """Digest of the base."""
    layers: tuple[str, ...]
    """DiffIDs, the bottom layer first."""
    size: int
    """Virtual, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    """A partition and the file that holds it; the path is relative to the descriptor."""

    partition: Partition
    path: str


def disk_digest(base: str, layers: Sequence[str]) -> str:
    """Name the disk of an image: the digest of all that goes into it, as `sha256:<hex>`."""
    recipe = json.dumps({"recipe": RECIPE, "base": base, "layers": list(layers)}, sort_keys=True)
    return f"sha256:{hashlib.sha256(recipe.encode()).hexdigest()}"


def compose(store: ArtifactStore, base: Base, layers: Sequence[str]) -> Disk:
    """Write the disk of an image with these layers (diffIDs, the bottom one first), unless it exists.

    Takes milliseconds. Raises NotFound for a layer that is not in the store, InvalidArgument for too many of them.
    """
    if len(layers) > MAX_LAYERS:
        raise InvalidArgument(f"The image has {len(layers)} layers; a disk holds {MAX_LAYERS}.")
    digest = disk_digest(base.digest, layers)
    final = store.disk(digest)
    with store.disks(exclusive=False), store.making(final), store.stage() as stage:
        if final.exists():
            return load_disk(store, digest)
        boot_code = (store.base(base.digest) / "mbr.bin").read_bytes()
        extents = list(_extents(store, base, layers))
        table = build_table([extent.partition for extent in extents], seed=digest, boot_code=boot_code)
        disk = Disk(digest=digest, base=base.digest, layers=tuple(layers), size=table.size)
        staged = stage / "disk"
        staged.mkdir()
        (staged / "head.raw").write_bytes(table.head)
        (staged / "tail.raw").write_bytes(table.tail)
        (staged / "disk.vmdk").write_text(_descriptor(extents, table))
        (staged / "disk.json").write_text(json.dumps(asdict(disk), indent=2) + "\n")
        store.commit(staged, final)
    return disk


def load_disk(store: ArtifactStore, digest: str) -> Disk:
    """Read what is recorded of a disk. Raises NotFound where the store has none of this digest."""
    try:
        record: dict[str, Any] = json.loads((store.disk(digest) / "disk.json").read_text())
    except FileNotFoundError:
        raise NotFound(f"There is no disk {digest}.", hint="Make the image again.") from None
    return Disk(**(record | {"layers": tuple(record["layers"])}))


def _extents(store: ArtifactStore, base: Base, layers: Sequence[str]) -> Iterator[_Extent]:
    """List what lies between head and tail, in the order that docs/guest.md fixes."""
    directory = f"../../bases/{plain_digest(base.digest)}"
    boot = Partition(label="uhm-boot", size=base.boot_size, type=PartitionType.EFI_SYSTEM, legacy_boot=True)
    yield _Extent(partition=boot, path=f"{directory}/boot.raw")
    yield _Extent(partition=Partition(label="uhm-base", size=base.base_size), path=f"{directory}/base.erofs")
    for diff_id in layers:
        blob = store.layer(diff_id)
        try:
            size = blob.stat().st_size
        except FileNotFoundError:
            raise NotFound(f"The layer {diff_id} is not in the store.", hint="Make the image again.") from None
        if size == 0 or size % ALIGNMENT:
            raise InternalError(f"The blob of layer {diff_id} has {size} bytes, which are not whole mebibytes.")
        yield _Extent(partition=Partition(label="uhm-layer", size=size), path=f"../../layers/{blob.name}")
    yield _Extent(partition=Partition(label="uhm-state", size=base.state_size), path=f"{directory}/state.raw")


def _descriptor(extents: Sequence[_Extent], table: Table) -> str:
    """Write the VMDK descriptor. QEMU drops extents of type ZERO, so every byte is backed by a file."""
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=fffffffe",
        "parentCID=ffffffff",
        'createType="twoGbMaxExtentFlat"',
        "",
        "# Extent description",
        *_extent_lines("head.raw", len(table.head)),
    ]
    for extent in extents:
        lines += _extent_lines(extent.path, extent.partition.size)
    cylinders = min(table.size // SECTOR // (16 * 63), 16383)
    lines += [
        *_extent_lines("tail.raw", len(table.tail)),
        "",
        "# The Disk Data Base",
        "#DDB",
        'ddb.virtualHWVersion = "4"',
        f'ddb.geometry.cylinders = "{cylinders}"',
        'ddb.geometry.heads = "16"',
        'ddb.geometry.sectors = "63"',
        'ddb.adapterType = "ide"',
        "",
    ]
    return "\n".join(lines)


def _extent_lines(path: str, size: int) -> Iterator[str]:
    """Name a file, in pieces below 2 GiB, the most that an extent of this type may have."""
    sectors = size // SECTOR
    for offset in range(0, sectors, _EXTENT_SECTORS):
        yield f'RW {min(_EXTENT_SECTORS, sectors - offset)} FLAT "{path}" {offset}'
