"""Layers whose file systems mean harm, looked into in a real appliance: each is an error or an answer, never the end.

A layer is a file that mkfs.erofs has made, but a disk of the store may have rotted, or somebody may have found a way
past it. The mutants are partitions of one drive, so that one launch does for all of them.
"""

from __future__ import annotations

import asyncio
import random
import tarfile
from collections import Counter
from contextlib import contextmanager

import pytest

from tests.integration.builder_system import MKFS
from tests.integration.inside_store import SUPERBLOCK, add_layer, entry, make_store, make_tar, without_checksum
from uhm_builder.appliance import open_appliance
from uhm_builder.appliances import Bounds
from uhm_builder.errors import DamagedImage, NoSuchFile, NotReadable, TooMuchInside
from uhm_builder.inside.drive import layers_drive
from uhm_builder.inside.entries import EntryKind
from uhm_builder.inside.tree import LISTING_BYTES, Tree, mount_layer, mount_layers, mount_merged
from uhm_builder.inside.views import Limits, Views
from uhm_builder.threads import in_thread

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
]

MUTANTS = 20
MIB = 1 << 20
SUPERBLOCK_END, BLOCKS_END = SUPERBLOCK + 128, 4 * 4096
LAYER = make_tar(
    {
        "d": entry(tarfile.DIRTYPE),
        **{f"d/{number:03d}": b"x" * number * 200 for number in range(40)},
        "link": "d/001",
        "fifo": entry(tarfile.FIFOTYPE),
        "far/down/below": entry(content=b"1", uid=100_000),
        "attributed": entry(content=b"1", pax_headers={"SCHILY.xattr.user.note": "x" * 300}),
    }
)
CLEAR = (DamagedImage, NoSuchFile, NotReadable, TooMuchInside)


class Specimens(Tree):
    """Blobs as partitions that are mounted when they are looked into."""

    def paths(self, number: int) -> int:
        """How many paths a blob has; all of them are looked at, and all files read."""
        mount_layer(self._appliance, number)
        root = f"/merged{number}"
        mount_merged(self._appliance, [f"/{number}"], at=root)
        found = self.look_below(root, list(self.below(root)))
        for each in found:
            if each.kind is EntryKind.FILE:
                self.read_whole(each.path, limit=MIB)
        return len(found)


class Laboratory(Views):
    """Views whose one appliance has all specimens."""

    def __init__(self, store, blobs):
        super().__init__(store, limits=Limits(kvm=False, memory_mib=512, seconds=60), bounds=Bounds(at_once=1))
        self.launches = 0
        self._blobs = blobs

    async def paths(self, number):
        async with self._used(("specimens",), self._specimens) as specimens:
            return await in_thread(lambda: specimens.paths(number))

    @contextmanager
    def _specimens(self):
        self.launches += 1
        with (
            layers_drive(self._store, self._blobs) as drive,
            open_appliance([drive], kvm=False, seconds=60, output_bytes=LISTING_BYTES) as appliance,
        ):
            mount_layers(appliance, 0)
            yield Specimens(appliance)


def mutated(blob: bytes, *, seed: int) -> bytes:
    """Bytes of the superblock or of what is behind it are others; three in four have no checksum that tells."""
    chance = random.Random(seed)
    changed = without_checksum(blob) if seed % 4 else bytearray(blob)
    where = range(SUPERBLOCK, SUPERBLOCK_END) if seed % 2 else range(SUPERBLOCK_END, BLOCKS_END)
    for at in chance.sample(where, 1 if seed % 2 else 64):
        changed[at] = chance.randrange(256)
    return bytes(changed)


async def test_mutated_file_systems_are_errors_or_answers_and_the_next_is_looked_into(tmp_path):
    store = make_store(tmp_path / "artifacts")
    whole = store.layer(add_layer(store, LAYER))
    blobs = []
    for seed in range(MUTANTS):
        blobs.append(whole.with_name(f"{seed}.erofs"))
        blobs[-1].write_bytes(mutated(whole.read_bytes(), seed=seed))
    laboratory = Laboratory(store, [*blobs, whole])
    running = asyncio.create_task(laboratory.run())
    outcomes = Counter()
    try:
        for number in range(1, MUTANTS + 1):
            try:
                await laboratory.paths(number)
                outcomes["answer"] += 1
            except CLEAR as error:
                outcomes[type(error).__name__] += 1
        paths = await laboratory.paths(MUTANTS + 1)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert paths == 47
    assert {"answer", "DamagedImage"} <= outcomes.keys(), outcomes
    assert laboratory.launches == 1
