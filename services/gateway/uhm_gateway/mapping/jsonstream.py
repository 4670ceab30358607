"""A stream of JSON values, newline-delimited or just one after another, cut into values while it arrives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uhm_gateway.errors import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JsonSplitter"]

_OUTSIDE = re.compile(rb'["{}\[\]\n]')
_INSIDE = re.compile(rb'["\\]')


class JsonSplitter:
    """Finds where values end: at the bracket that closes the first one, or at a line's end where there is none.

    It only counts brackets; whether the value is JSON shows when it is decoded.
    """

    def __init__(self, *, limit: int) -> None:
        """`limit` bounds one value, in bytes."""
        self._limit = limit
        self._pending = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Takes a piece of the stream; yields the values that end in it. Raises BodyTooLarge."""
        self._pending += piece
        while (end := self._find_end()) is not None:
            value = bytes(self._pending[:end]).strip()
            del self._pending[:end]
            self._scanned = 0
            if value:
                yield value
        if len(self._pending) > self._limit:
            raise BodyTooLarge(self._limit)

    def close(self) -> bytes:
        """What is left when the stream has ended: a value without a line's end, a broken one, or nothing."""
        return bytes(self._pending).strip()

    def _find_end(self) -> int | None:
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(self._pending, self._scanned)
            if found is None:
                self._scanned = len(self._pending)
                return None
            mark, self._scanned = found.group(), found.end()
            if mark == b"\\":
                if self._scanned == len(self._pending):
                    self._scanned = found.start()
                    return None
                self._scanned += 1
            elif mark == b'"':
                self._in_string = not self._in_string
            elif mark in b"{[":
                self._depth += 1
            elif mark in b"}]":
                self._depth = max(0, self._depth - 1)
            if self._depth == 0 and mark in b"}]\n":
                return self._scanned
