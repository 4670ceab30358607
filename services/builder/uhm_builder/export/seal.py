"""A seal: dm-verity over all that a machine only reads, as a chain with one root hash at its beginning.

The kernel's command line, in the configuration of each loader in the boot partition, has the root hash of `uhm-config`;
that has those of base and layers, whose trees lie in `uhm-hashes`. The boot partition itself stays one file for all
images: its extents end where the root hash is spliced in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from uhm_builder.descriptor import Extent, Filled
from uhm_builder.export.verity import ensure_tree, root_hash
from uhm_builder.gpt import ALIGNMENT, SECTOR, Partition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uhm_builder.base import Base
    from uhm_builder.export.configuration import Pair
    from uhm_common.artifacts import ArtifactStore

__all__ = ["Trees", "layer_trees", "with_root_hash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """The partition that holds trees, and what the configuration says of them."""

    hashes: Filled
    pairs: tuple[Pair, ...]


def layer_trees(
    store: ArtifactStore, base: Base, layers: Sequence[str], shared: Sequence[Filled], *, padding: str
) -> Trees:
    """The trees of base and layers, one after the other in the partition behind the shared ones, made where absent.

    `padding` names a file of zeros, a mebibyte long, in the disk's directory. Raises ProcessFailed.
    """
    number = len(shared) + 1
    directory = store.base(base.digest)
    blobs = [(directory / "base.erofs", directory / "base.verity")]
    blobs += [(store.layer(diff_id), store.layer(diff_id).with_suffix(".verity")) for diff_id in layers]
    extents: list[Extent] = []
    pairs: list[Pair] = []
    offset = 0
    for position, ((data, tree), guarded) in enumerate(zip(blobs, shared[1:], strict=True), start=2):
        ensure_tree(store, data, tree)
        size = tree.stat().st_size
        words = (position, guarded.partition.size, number, offset, root_hash(tree), "-")
        pairs.append(("verity", " ".join(map(str, words))))
        path = guarded.extents[0].path.removesuffix(data.name) + tree.name
        extents.append(Extent(path=path, size=size))
        offset += size
    if rest := -offset % ALIGNMENT:
        extents.append(Extent(path=padding, size=rest))
    hashes = Partition(label="uhm-hashes", size=offset + rest)
    return Trees(hashes=Filled(partition=hashes, extents=tuple(extents)), pairs=tuple(pairs))


def with_root_hash(store: ArtifactStore, base: Base, boot: Filled, *, root: str, into: Path) -> Filled:
    """The boot partition with a root hash where its loaders' configurations have room for one.

    The sectors that change are written to the file `into`.
    """
    patches: dict[int, bytearray] = {}
    with (store.base(base.digest) / "boot.raw").open("rb") as original:
        for offset in base.seal_offsets:
            for at, character in enumerate(root.encode(), start=offset):
                sector = at // SECTOR
                if sector not in patches:
                    original.seek(sector * SECTOR)
                    patches[sector] = bytearray(original.read(SECTOR))
                patches[sector][at % SECTOR] = character
    sectors = sorted(patches)
    into.write_bytes(b"".join(bytes(patches[sector]) for sector in sectors))
    path = boot.extents[0].path
    extents: list[Extent] = []
    edges = [-1, *sectors, boot.partition.size // SECTOR]
    for number, (before, sector) in enumerate(pairwise(edges)):
        if gap := sector - before - 1:
            extents.append(Extent(path=path, size=gap * SECTOR, offset=(before + 1) * SECTOR))
        if number < len(sectors):
            extents.append(Extent(path=into.name, size=SECTOR, offset=number * SECTOR))
    return replace(boot, extents=tuple(extents))
