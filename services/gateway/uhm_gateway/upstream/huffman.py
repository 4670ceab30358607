"""Texts of header blocks that are packed by Huffman's code (RFC 7541, section 5.2 and appendix B).

hpack's table takes four bits at a step. Here a step takes eight: it is made of two of hpack's when first wanted, and
kept. Services in Go pack whatever they send, so that each of their answers has a text or two to unpack.
"""

from __future__ import annotations

from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE

__all__ = ["unpacked"]

_Step = tuple["_State", bytes]


class _State(dict[int, _Step]):
    """Where a text may be, and for each byte that may come the state after it and what comes out."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.may_end = number in _ENDS

    def __missing__(self, byte: int) -> _Step:
        number, out = self._number, b""
        for nibble in (byte >> 4, byte & 0xF):
            number, flags, symbol = HUFFMAN_TABLE[number << 4 | nibble]
            if flags & HUFFMAN_FAIL:
                raise HPACKDecodingError("Invalid Huffman string")
            if flags & HUFFMAN_EMIT_SYMBOL:
                out += bytes((symbol,))
        step = self[byte] = (_STATES[number], out)
        return step


_ENDS: Final = {number for number, flags, _ in HUFFMAN_TABLE if flags & HUFFMAN_COMPLETE}
_STATES: Final = tuple(_State(number) for number in range(len(HUFFMAN_TABLE) >> 4))


def unpacked(text: bytes) -> bytes:
    """The text that was packed. Raises HPACKDecodingError."""
    state = _STATES[0]
    out = []
    for byte in text:
        state, piece = state[byte]
        out.append(piece)
    if not state.may_end:
        raise HPACKDecodingError("Incomplete Huffman string")
    return b"".join(out)
