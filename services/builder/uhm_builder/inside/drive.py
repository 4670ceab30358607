"""Layers as one drive of an appliance, which stays whole whatever is deleted from the store meanwhile.

The drive's files are hard links in a staging directory: deleting an image never has to wait for who looks into it, and
what a crash leaves behind is swept as staging directories are. Partition 1 is the first blob.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uhm_builder.appliance import Drive
from uhm_builder.descriptor import DESCRIPTOR, Extent, Filled, write_composite
from uhm_builder.gpt import Partition
from uhm_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uhm_common.artifacts import ArtifactStore

__all__ = ["layers_drive"]


@contextmanager
def layers_drive(store: ArtifactStore, blobs: Sequence[Path]) -> Iterator[Drive]:
    """A read-only drive whose partitions are these EROFS blobs, in order. Raises NotFound where one is gone."""
    with store.stage() as stage:
        partitions = [_linked(blob, stage / f"{number}.erofs") for number, blob in enumerate(blobs, start=1)]
        write_composite(stage, partitions, seed="inside", boot_code=b"")
        yield Drive(path=stage / DESCRIPTOR, format="vmdk", readonly=True)


def _linked(blob: Path, link: Path) -> Filled:
    try:
        os.link(blob, link)
    except FileNotFoundError:
        raise NotFound(f"{blob.name} is not in the store any more.", hint="Make the image again.") from None
    size = link.stat().st_size
    return Filled(partition=Partition(label="uhm-layer", size=size), extents=(Extent(path=link.name, size=size),))
