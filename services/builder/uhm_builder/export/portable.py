"""Composing a disk that boots by itself: an image's disk, what it is to run, and the seal where one is wanted.

Between the layers and the state lies `uhm-config` (`export.configuration`), and before it in a sealed disk `uhm-hashes`
(`export.seal`). docs/portable.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uhm_builder.descriptor import DESCRIPTOR, Extent, Filled, write_composite
from uhm_builder.disk import shared_partitions
from uhm_builder.errors import InvalidExport, StaleImage
from uhm_builder.export.configuration import DATA_BYTES, configuration, data_area
from uhm_builder.export.seal import layer_trees, with_root_hash
from uhm_builder.export.state import SMALL_STATE, ensure_small_state
from uhm_builder.export.verity import seal_in_place
from uhm_builder.gpt import ALIGNMENT, Partition
from uhm_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from uhm_builder.base import Base
    from uhm_builder.export.configuration import Pair
    from uhm_builder.images import ImageConfig
    from uhm_common.artifacts import ArtifactStore

__all__ = ["Portable", "compose_portable"]

RECIPE = 1
"""Part of every portable disk's seed: count it up when the same image shall give other GUIDs."""

_CONFIG, _PADDING, _SEAL = "config.raw", "padding.raw", "seal.raw"
_STORE = "../../"
"""How paths of the store begin in what `shared_partitions` answers."""
_SEALED_CONFIG_BYTES = 2 * ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Portable:
    """A composed disk, of which nothing is copied yet."""

    descriptor: Path
    """What QEMU's block layer opens as a vmdk; it lives as long as its directory, whatever the store loses."""
    partitions: tuple[Partition, ...]
    size: int
    """Virtual, in bytes."""
    seed: str
    """What the disk's GUIDs derive from."""
    configuration: tuple[Pair, ...]
    root_hash: str = ""
    """Of the configuration of a sealed disk."""


def compose_portable(
    store: ArtifactStore,
    base: Base,
    layers: Sequence[str],
    config: ImageConfig,
    *,
    directory: Path,
    seal: bool = False,
    size: int = 0,
    compact: bool = False,
) -> Portable:
    """Compose the disk of an image (diffIDs, the bottom layer first) in an empty directory on the store's file system.

    `size` 0 is what the base's state needs, or with `compact` the small one. Takes milliseconds, and the time to hash
    what was never sealed before. Raises NotFound for a layer that is not in the store, UnsupportedImage for a
    configuration without a command, StaleImage for a base whose boot partition was made for no such disk, InvalidExport
    for a size that is too small.
    """
    if not base.seal_offsets:
        raise StaleImage(
            "The image was made by a version that could not export disks.", hint="Make it again, then export it."
        )
    pairs = configuration(config)
    *shared, state = shared_partitions(store, base, layers)
    root = ""
    if seal:
        trees = layer_trees(store, base, layers, shared, padding=_hole(directory / _PADDING, ALIGNMENT))
        pairs += trees.pairs
        root = _write_configuration(directory / _CONFIG, pairs, seal=True)
        shared = [with_root_hash(store, base, shared[0], root=root, into=directory / _SEAL), *shared[1:], trees.hashes]
    else:
        _write_configuration(directory / _CONFIG, pairs, seal=False)
    settings = Partition(label="uhm-config", size=(directory / _CONFIG).stat().st_size)
    partitions = [*shared, Filled(partition=settings, extents=(Extent(path=_CONFIG, size=settings.size),)), state]
    if _needed(partitions) > size > 0 or (compact and not size):
        partitions[-1] = _small_state(store, base, state)
    _check_size(partitions, size)
    seed = _seed(base, layers, pairs, root)
    boot_code = (store.base(base.digest) / "mbr.bin").read_bytes()
    held = _held(store, partitions, directory)
    whole = write_composite(directory, held, seed=seed, boot_code=boot_code, size=size)
    return Portable(
        descriptor=directory / DESCRIPTOR,
        partitions=tuple(each.partition for each in partitions),
        size=whole,
        seed=seed,
        configuration=pairs,
        root_hash=root,
    )


def _seed(base: Base, layers: Sequence[str], pairs: Sequence[Pair], root: str) -> str:
    recipe = {"recipe": RECIPE, "base": base.digest, "layers": list(layers), "configuration": pairs, "seal": root}
    return f"sha256:{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()}"


def _needed(partitions: Sequence[Filled]) -> int:
    return 2 * ALIGNMENT + sum(each.partition.size for each in partitions)


def _check_size(partitions: Sequence[Filled], size: int) -> None:
    needed = _needed(partitions)
    if 0 < size < needed:
        raise InvalidExport(
            f"A disk of {size} bytes is too small: the image needs {needed}.",
            hint=f"Give it at least {-(-needed // (1 << 20))}M, or no size.",
        )


def _small_state(store: ArtifactStore, base: Base, state: Filled) -> Filled:
    small = ensure_small_state(store, base)
    path = state.extents[0].path.rpartition("/")[0] + f"/{small.name}"
    extent = Extent(path=path, size=SMALL_STATE)
    return Filled(partition=replace(state.partition, size=SMALL_STATE), extents=(extent,))


def _held(store: ArtifactStore, partitions: Sequence[Filled], directory: Path) -> list[Filled]:
    """The partitions with links in the directory in place of the store's own files, which may be deleted meanwhile."""
    links: dict[str, str] = {}
    for extent in (extent for each in partitions for extent in each.extents if extent.path.startswith(_STORE)):
        if extent.path not in links:
            links[extent.path] = f"{len(links)}.part"
            _link(store.root / extent.path.removeprefix(_STORE), directory / links[extent.path])
    return [replace(each, extents=tuple(_renamed(extent, links) for extent in each.extents)) for each in partitions]


def _renamed(extent: Extent, links: Mapping[str, str]) -> Extent:
    return replace(extent, path=links.get(extent.path, extent.path))


def _link(original: Path, link: Path) -> None:
    try:
        link.hardlink_to(original)
    except FileNotFoundError:
        raise NotFound(f"{original.name} is not in the store any more.", hint="Make the image again.") from None


def _write_configuration(path: Path, pairs: Sequence[Pair], *, seal: bool) -> str:
    """Write the content of `uhm-config`; answers its root hash where it is sealed."""
    path.write_bytes(data_area(pairs))
    if not seal:
        return ""
    root = seal_in_place(path, data_bytes=DATA_BYTES)
    _hole(path, _SEALED_CONFIG_BYTES)
    return root


def _hole(path: Path, size: int) -> str:
    """Make a file that long; answers its name."""
    with path.open("ab") as file:
        file.truncate(size)
    return path.name
