"""Texts of header blocks that are packed by Huffman's code (RFC 7541, section 5.2 and appendix B).

hpack's table takes four bits at a step. Here a step takes eight: it is made of two of hpack's when first wanted, and
kept. Services in Go pack whatever they send, so that each of their answers has a text or two to unpack.
"""

from __future__ import annotations

from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE

__all__ = ["unpacked"]

_Step = tuple[int, bytes, bool]


class _Steps(dict[int, _Step]):
    """By state and byte: the state after it, what came out, and whether the text may end there."""

    def __missing__(self, key: int) -> _Step:
        state, out, flags = key >> 8, b"", 0
        for nibble in (key >> 4 & 0xF, key & 0xF):
            state, flags, symbol = HUFFMAN_TABLE[state << 4 | nibble]
            if flags & HUFFMAN_FAIL:
                raise HPACKDecodingError("Invalid Huffman string")
            if flags & HUFFMAN_EMIT_SYMBOL:
                out += bytes((symbol,))
        step = self[key] = (state, out, bool(flags & HUFFMAN_COMPLETE))
        return step


_steps: Final = _Steps()


def unpacked(text: bytes) -> bytes:
    """The text that was packed. Raises HPACKDecodingError."""
    state, may_end = 0, True
    out = []
    for byte in text:
        state, piece, may_end = _steps[state << 8 | byte]
        out.append(piece)
    if not may_end:
        raise HPACKDecodingError("Incomplete Huffman string")
    return b"".join(out)
