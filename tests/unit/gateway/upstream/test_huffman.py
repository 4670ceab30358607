"""Texts that Huffman's code has packed."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from uhm_gateway.upstream.huffman import unpacked

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


@given(st.binary(max_size=200))
def test_what_was_packed_comes_out(text: bytes) -> None:
    assert unpacked(ENCODER.encode(text)) == text


@given(st.binary(max_size=40))
def test_any_bytes_are_taken_or_refused_as_hpack_does(packed: bytes) -> None:
    try:
        expected = decode_huffman(packed)
    except HPACKDecodingError as refusal:
        with pytest.raises(HPACKDecodingError, match=str(refusal)):
            unpacked(packed)
    else:
        assert unpacked(packed) == expected


@pytest.mark.parametrize(
    ("packed", "text"),
    [  # RFC 7541, appendix C.4
        (bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff"), b"www.example.com"),
        (bytes.fromhex("25a849e95bb8e8b4bf"), b"custom-value"),
        (b"", b""),
    ],
)
def test_examples(packed: bytes, text: bytes) -> None:
    assert unpacked(packed) == text
