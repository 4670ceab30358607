"""Answers that a client has already (RFC 9110, sections 8.8.3 and 13.1.2): an ETag on each, 304 where it still fits.

The work upstream is done all the same; what is saved is the way. Tags are weak: the same content, compressed or not.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["etag_of", "is_known"]

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def etag_of(body: bytes) -> str:
    """The tag of a body."""
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether an If-None-Match header names the tag, by weak comparison, or any."""
    return if_none_match.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(if_none_match)
