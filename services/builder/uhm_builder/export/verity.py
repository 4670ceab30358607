"""dm-verity: hash trees over what a machine only reads, made once for each blob and kept beside it.

    layers/<diffID hex>.verity    of layers/<diffID hex>.erofs
    bases/<digest hex>/base.verity

A tree begins with a superblock in a block of its own; its hashes follow, the topmost block first, so that the root hash
is the hash of the second block and is not kept apart. No salt and a fixed UUID: the same data has the same tree.
Specification: the kernel's Documentation/admin-guide/device-mapper/verity.rst, format 1; veritysetup(8).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from uhm_common.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_common.artifacts import ArtifactStore

__all__ = ["BLOCK", "ensure_tree", "root_hash", "seal_in_place"]

BLOCK = 4096
_UUID = "0e9ad0f6-5d5f-4a4e-9d14-6f7a3f2b8c11"
_OPTIONS = ("--format=1", "--hash=sha256", f"--data-block-size={BLOCK}", f"--hash-block-size={BLOCK}", "--salt=-",
            f"--uuid={_UUID}")  # fmt: skip
_SECONDS, _BYTES_PER_SECOND = 30.0, 20_000_000


def ensure_tree(store: ArtifactStore, data: Path, tree: Path) -> None:
    """Make the tree over a blob of the store, unless it is there. The blob has more than one block.

    Those who want it at the same time make it once. Raises ProcessFailed.
    """
    if tree.exists():
        return
    with store.making(tree), store.stage() as stage:
        if tree.exists():
            return
        staged = stage / tree.name
        _format(data, staged)
        staged.chmod(data.stat().st_mode & 0o777)
        store.commit(staged, tree)


def seal_in_place(path: Path, *, data_bytes: int) -> str:
    """Append the tree over the file's first bytes, right behind them; answers the root hash. Raises ProcessFailed."""
    _format(path, path, f"--data-blocks={data_bytes // BLOCK}", f"--hash-offset={data_bytes}")
    return root_hash(path, offset=data_bytes)


def root_hash(tree: Path, *, offset: int = 0) -> str:
    """The root hash of the tree that begins there, in hexadecimal."""
    with tree.open("rb") as file:
        file.seek(offset + BLOCK)
        return hashlib.sha256(file.read(BLOCK)).hexdigest()


def _format(data: Path, tree: Path, *more: str) -> None:
    timeout = _SECONDS + data.stat().st_size / _BYTES_PER_SECOND
    run(["veritysetup", "format", *_OPTIONS, *more, data, tree], timeout=timeout)
