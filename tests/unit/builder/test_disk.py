"""Composing disks: what the descriptor lists, and that a disk is made once."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from uhm_builder.base import Base
from uhm_builder.disk import compose, disk_digest, load_disk
from uhm_common.artifacts import ArtifactStore
from uhm_common.errors import InternalError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
BASE = Base(
    digest=f"sha256:{'b' * 64}",
    kernel_version="6.1",
    command_line="quiet",
    boot_size=64 * MIB,
    base_size=MIB,
    state_size=10 << 30,
)
LAYERS = (f"sha256:{'1' * 64}", f"sha256:{'2' * 64}")


def add_layer(store: ArtifactStore, diff_id: str, size: int) -> None:
    blob = store.layer(diff_id)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.touch()
    os.truncate(blob, size)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with a base, and layers of 2 MiB and 5 GiB."""
    store = ArtifactStore(tmp_path / "artifacts")
    base = store.base(BASE.digest)
    base.mkdir(parents=True)
    (base / "mbr.bin").write_bytes(b"\xeb\xfe")
    for name, size in (("boot.raw", BASE.boot_size), ("base.erofs", BASE.base_size), ("state.raw", BASE.state_size)):
        (base / name).touch()
        os.truncate(base / name, size)
    add_layer(store, LAYERS[0], 2 * MIB)
    add_layer(store, LAYERS[1], 5 << 30)
    return store


def extents(descriptor: str) -> list[tuple[str, int, int]]:
    """File, offset and length of every extent, in sectors."""
    found = re.findall(r'^RW (\d+) FLAT "([^"]+)" (\d+)$', descriptor, re.MULTILINE)
    return [(path, int(offset), int(length)) for length, path, offset in found]


def test_the_descriptor_lists_every_byte_of_every_part_in_order(store: ArtifactStore) -> None:
    disk = compose(store, BASE, LAYERS)
    directory = store.disk(disk.digest)
    covered: dict[str, int] = {}
    for path, offset, length in extents((directory / "disk.vmdk").read_text()):
        assert offset == covered.get(path, 0), "extents of a file follow one another"
        assert length * 512 < 2 << 30
        covered[path] = offset + length
    assert [path.rsplit("/", 1)[-1][:10] for path in covered] == [
        "head.raw", "boot.raw", "base.erofs", "1" * 10, "2" * 10, "state.raw", "tail.raw",
    ]  # fmt: skip
    for path, sectors in covered.items():
        assert (directory / path).stat().st_size == sectors * 512
    assert disk.size == sum(covered.values()) * 512


def test_the_digest_names_base_layers_and_their_order() -> None:
    digests = [
        disk_digest(BASE.digest, LAYERS),
        disk_digest(BASE.digest, LAYERS[::-1]),
        disk_digest(BASE.digest, LAYERS[:1]),
        disk_digest(f"sha256:{'c' * 64}", LAYERS),
    ]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests)


def test_an_image_without_layers_has_a_disk(store: ArtifactStore) -> None:
    assert compose(store, BASE, ()).layers == ()


def test_many_at_once_make_one_disk(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        disks = set(pool.map(lambda _: compose(store, BASE, LAYERS), range(16)))
    assert len(disks) == 1
    assert not list((store.root / "staging").iterdir())
    assert load_disk(store, disks.pop().digest).layers == LAYERS


def test_an_existing_disk_is_left_alone(store: ArtifactStore) -> None:
    descriptor = store.disk(compose(store, BASE, LAYERS).digest) / "disk.vmdk"
    before = descriptor.stat()
    compose(store, BASE, LAYERS)
    assert descriptor.stat() == before


def test_a_missing_layer_is_named(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="sha256:3333"):
        compose(store, BASE, (f"sha256:{'3' * 64}",))
    assert not (store.root / "disks").exists()


def test_a_blob_that_is_not_padded_is_refused(store: ArtifactStore) -> None:
    add_layer(store, LAYERS[0], MIB + 1)
    with pytest.raises(InternalError, match="whole mebibytes"):
        compose(store, BASE, LAYERS)


def test_too_many_layers_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(InvalidArgument, match="300 layers"):
        compose(store, BASE, LAYERS * 150)


def test_an_unknown_disk_is_not_found(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="no disk sha256:0"):
        load_disk(store, "sha256:0")
