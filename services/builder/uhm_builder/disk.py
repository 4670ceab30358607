"""Composing an image's disk: a partition table and a list of what lies where. Nothing is copied.

The extents are the base's partitions and the layers' blobs, where they are in the store, which can be moved as a whole.
docs/guest.md says what the partitions are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uhm_builder.descriptor import Extent, Filled, write_composite
from uhm_builder.gpt import ALIGNMENT, Partition, PartitionType
from uhm_common.artifacts import plain_digest
from uhm_common.errors import InternalError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uhm_builder.base import Base
    from uhm_common.artifacts import ArtifactStore

__all__ = ["MAX_LAYERS", "Disk", "compose", "disk_digest", "load_disk", "shared_partitions"]

MAX_LAYERS = 250
"""As many as the guest mounts; a table has room for these and a few more partitions."""

RECIPE = 1
"""Part of every disk's digest: count it up when the same input shall give another disk."""


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


def disk_digest(base: str, layers: Sequence[str]) -> str:
    """Name the disk of an image: the digest of all that goes into it, as `sha256:<hex>`."""
    recipe = json.dumps({"recipe": RECIPE, "base": base, "layers": list(layers)}, sort_keys=True)
    return f"sha256:{hashlib.sha256(recipe.encode()).hexdigest()}"


def compose(store: ArtifactStore, base: Base, layers: Sequence[str]) -> Disk:
    """Write the disk of an image with these layers (diffIDs, the bottom one first), unless it exists.

    Takes milliseconds. Raises NotFound for a layer that is not in the store, InvalidArgument for too many of them.
    """
    digest = disk_digest(base.digest, layers)
    final = store.disk(digest)
    with store.disks(exclusive=False), store.making(final), store.stage() as stage:
        if final.exists():
            return load_disk(store, digest)
        boot_code = (store.base(base.digest) / "mbr.bin").read_bytes()
        partitions = shared_partitions(store, base, layers)
        staged = stage / "disk"
        staged.mkdir()
        size = write_composite(staged, partitions, seed=digest, boot_code=boot_code)
        disk = Disk(digest=digest, base=base.digest, layers=tuple(layers), size=size)
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


def shared_partitions(store: ArtifactStore, base: Base, layers: Sequence[str]) -> list[Filled]:
    """What lies between a disk's ends, in the order that docs/guest.md fixes.

    Paths begin with `../../`, the way from a disk's directory to the store's.
    Raises NotFound for a layer that is not in the store, InvalidArgument for too many of them.
    """
    if len(layers) > MAX_LAYERS:
        raise InvalidArgument(f"The image has {len(layers)} layers; a disk holds {MAX_LAYERS}.")
    directory = f"../../bases/{plain_digest(base.digest)}"
    boot = Partition(label="uhm-boot", size=base.boot_size, type=PartitionType.EFI_SYSTEM, legacy_boot=True)
    root = Partition(label="uhm-base", size=base.base_size)
    state = Partition(label="uhm-state", size=base.state_size)
    return [
        _whole(boot, f"{directory}/boot.raw"),
        _whole(root, f"{directory}/base.erofs"),
        *(_layer(store, diff_id) for diff_id in layers),
        _whole(state, f"{directory}/state.raw"),
    ]


def _layer(store: ArtifactStore, diff_id: str) -> Filled:
    blob = store.layer(diff_id)
    try:
        size = blob.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"The layer {diff_id} is not in the store.", hint="Make the image again.") from None
    if size == 0 or size % ALIGNMENT:
        raise InternalError(f"The blob of layer {diff_id} has {size} bytes, which are not whole mebibytes.")
    return _whole(Partition(label="uhm-layer", size=size), f"../../layers/{blob.name}")


def _whole(partition: Partition, path: str) -> Filled:
    """A partition that is a file."""
    return Filled(partition=partition, extents=(Extent(path=path, size=partition.size),))
