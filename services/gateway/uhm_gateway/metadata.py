"""HTTP headers as gRPC metadata and back.

Forwarded are `authorization`, the request's id, the W3C trace context, and what a client marks with grpc-gateway's
prefix `Grpc-Metadata-`; answers carry the upstream's initial metadata under the same prefix.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from typing import TYPE_CHECKING

from uhm_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["REQUEST_ID", "Metadata", "request_id", "timeout_of", "to_headers", "to_metadata"]

Metadata = tuple[tuple[str, str | bytes], ...]

REQUEST_ID = "x-request-id"
PREFIX = "grpc-metadata-"
_FORWARDED = frozenset((b"authorization", b"traceparent", b"tracestate", b"baggage"))
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NEVER_FORWARDED = frozenset(("content-type", "te", "user-agent", REQUEST_ID))
Headers = list[tuple[bytes, bytes]]


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id that the client gave, where it is one a log can hold; else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return text
    return uuid.uuid4().hex


def to_metadata(headers: Iterable[tuple[bytes, bytes]], *, identifier: str) -> Metadata:
    """The metadata of the upstream call. Raises BadRequest for a header that metadata cannot hold."""
    found: list[tuple[str, str | bytes]] = [(REQUEST_ID, identifier)]
    for name, value in headers:
        if name in _FORWARDED:
            found.append((name.decode(), _text(name.decode(), value)))
        elif name.startswith(b"grpc-metadata-"):
            key = name.decode("latin-1")[len(PREFIX) :]
            if _KEY.fullmatch(key) and not key.startswith("grpc-") and key not in _NEVER_FORWARDED:
                found.append((key, _binary(key, value) if key.endswith("-bin") else _text(key, value)))
    return tuple(found)


def timeout_of(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds of the `Grpc-Timeout` header (gRPC over HTTP/2, Timeout). Raises BadRequest where it is not one."""
    for name, value in headers:
        if name == b"grpc-timeout":
            found = _TIMEOUT.fullmatch(value.decode("latin-1"))
            if found is None:
                raise BadRequest(f"Grpc-Timeout {value.decode('latin-1')!r} is not digits and one of H, M, S, m, u, n.")
            return int(found[1]) * _UNITS[found[2]]
    return None


def to_headers(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """An upstream's initial metadata as response headers."""
    return [
        (f"{PREFIX}{key}".encode(), base64.b64encode(value) if isinstance(value, bytes) else value.encode("latin-1"))
        for key, value in metadata
        if key not in _NEVER_FORWARDED and not key.startswith("grpc-")
    ]


def _text(name: str, value: bytes) -> str:
    text = value.decode("latin-1")
    if not _VALUE.fullmatch(text):
        raise BadRequest(f"Header {name!r} has characters that are not printable ASCII.")
    return text


def _binary(name: str, value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise BadRequest(f"Header {name!r} is not base64, which metadata ending in -bin must be.") from error
