"""Decompression piece by piece."""

from __future__ import annotations

import gzip
import os

import pytest
import zstandard

from uhm_builder.errors import ContentMismatch
from uhm_builder.inflate import Inflater
from uhm_builder.pieces import PIECE

CONTENT = os.urandom(60_000) + bytes(20 << 20) + b"end"
HALF = 40_000


def inflate(blob: bytes, step: int) -> tuple[bytes, int]:
    """The content, and the largest piece that was given out."""
    pieces: list[bytes] = []
    inflater = Inflater(lambda piece: pieces.append(bytes(piece)))
    for at in range(0, len(blob), step):
        inflater.feed(blob[at : at + step])
    inflater.finish()
    return b"".join(pieces), max(map(len, pieces), default=0)


@pytest.mark.parametrize("step", [3, 1000, 1 << 20])
@pytest.mark.parametrize(
    "blob",
    [
        gzip.compress(CONTENT, 1),
        gzip.compress(CONTENT[:HALF]) + gzip.compress(CONTENT[HALF:]),
        gzip.compress(CONTENT, 1) + bytes(512),
        zstandard.compress(CONTENT),
        zstandard.compress(CONTENT[:HALF]) + zstandard.compress(CONTENT[HALF:]),
    ],
    ids=["gzip", "gzip members", "gzip padded", "zstd", "zstd frames"],
)
def test_content_comes_out_in_bounded_pieces(blob, step):
    content, largest = inflate(blob, step)

    assert content == CONTENT
    assert largest <= PIECE


@pytest.mark.parametrize("content", [b"", b"a", b"abc", b"plain tar bytes"])
def test_what_is_not_compressed_passes(content):
    assert inflate(content, 2)[0] == content


def test_a_gzip_stream_that_ends_early_is_noticed():
    with pytest.raises(ContentMismatch, match="ends early"):
        inflate(gzip.compress(CONTENT)[:-20], 1000)


@pytest.mark.parametrize("blob", [b"\x1f\x8b" + b"x" * 100, b"\x28\xb5\x2f\xfd" + b"x" * 100])
def test_garbage_is_noticed(blob):
    with pytest.raises(ContentMismatch, match="not valid"):
        inflate(blob, 1000)
