"""Percent-decoding of paths, as google/api/http.proto tells it for the two kinds of variables.

A variable of one segment is decoded in full, `%2F` too. In a variable of several segments the reserved characters of
RFC 6570 (section 1.5) stay encoded, so that an encoded `/` can be told from one that separates segments; this is what
`fully_decode_reserved_expansion` being false, the default, asks for.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from uhm_gateway.errors import BadRequest

__all__ = ["decode", "decode_unreserved", "is_well_formed"]

_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")
_RESERVED = re.compile("%(" + "|".join(f"{ord(char):02X}" for char in ":/?#[]@!$&'()*+,;=") + ")", re.IGNORECASE)


def is_well_formed(text: str) -> bool:
    """Whether every `%` is followed by two hexadecimal digits."""
    return _BROKEN.search(text) is None


def decode(text: str) -> str:
    """Decodes everything. Raises BadRequest where an escape is cut short or the bytes are not UTF-8."""
    if "%" not in text:
        return text
    if not is_well_formed(text):
        raise BadRequest(f"{text!r} has a '%' without two hexadecimal digits after it.")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{text!r} is not UTF-8 after percent-decoding.") from error


def decode_unreserved(text: str) -> str:
    """Decodes all but escaped reserved characters, which stay as they were written. Raises as `decode` does."""
    return decode(_RESERVED.sub(r"%25\1", text)) if "%" in text else text
