"""Files in pieces."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from uhm_builder.export.sparse import digest_of, pieces
from uhm_builder.pieces import PIECE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "stretches",
    [
        [],
        [b"x"],
        [PIECE * 3],
        [5],
        [b"x" * 4096, PIECE * 2 + 4096, b"y" * (PIECE + 4096), 8192],
        [4096, b"y" * 10],
    ],
)
def test_all_of_a_file_comes_holes_too(tmp_path: Path, stretches: list[bytes | int]) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for stretch in stretches:
            if isinstance(stretch, int):
                file.seek(stretch, os.SEEK_CUR)
            else:
                file.write(stretch)
        file.truncate(file.tell())
    content = path.read_bytes()

    assert b"".join(pieces(path)) == content
    assert max(map(len, pieces(path)), default=0) <= PIECE
    assert digest_of(path) == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_digest_can_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert digest_of(path, goes_on=lambda: False).startswith("sha256:")
