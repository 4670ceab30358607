"""Percent-decoding of paths, as google/api/http.proto tells it for the two kinds of variables.

A variable of one segment is decoded in full, `%2F` too. In a variable of several segments everything is decoded but
`%2F`, so that an encoded `/` can be told from one that separates segments: clients encode all but `[-_.~/0-9a-zA-Z]`,
and "the server side does the reverse decoding, except "%2F" and "%2f" are left unchanged". (The same file says of
`fully_decode_reserved_expansion`, an option of service configurations, that without it all of RFC 6570's reserved
characters stay encoded. Then a value with a `:` would not come back as its client had it; the rule's own text does.)
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from uhm_gateway.errors import BadRequest

__all__ = ["decode", "decode_but_slashes", "is_well_formed"]

_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile("%(2[Ff])")


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


def decode_but_slashes(text: str) -> str:
    """Decodes all but escaped slashes, which stay as they were written. Raises as `decode` does."""
    return decode(_SLASH.sub(r"%25\1", text)) if "%" in text else text
