"""HTTP headers as gRPC metadata and back.

Forwarded are `authorization`, `idempotency-key`, the W3C trace context, and of what a client marks with grpc-gateway's
prefix `Grpc-Metadata-` the keys that are allowed. The request's id and where it came from are the gateway's to say.
Answers carry the upstream's initial metadata under the same prefix and its trailing metadata under `Grpc-Trailer-`;
only `cache-control` is a header of its own.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from random import getrandbits
from typing import TYPE_CHECKING, Self

from uhm_common.callers.calls import CLIENT_ADDRESS, REQUEST_ID, USER_AGENT
from uhm_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uhm_common.callers.calls import Call

__all__ = [
    "CACHE_CONTROL",
    "Allowed",
    "Headers",
    "Metadata",
    "about",
    "initial_headers",
    "request_id",
    "seconds_of",
    "to_metadata",
    "trailing_headers",
]

Metadata = tuple[tuple[str, str | bytes], ...]
Headers = list[tuple[bytes, bytes]]

CACHE_CONTROL = "cache-control"
PREFIX = b"grpc-metadata-"
OWN_PREFIX = "x-uhm-"
# To grpc.aio no time at all is no deadline, and its deadlines overflow in some centuries.
SHORTEST_SECONDS, LONGEST_SECONDS = 1e-9, 1e8
_FORWARDED = {
    name.encode(): name for name in ("authorization", "baggage", "idempotency-key", "traceparent", "tracestate")
}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_KEY = re.compile(r"[0-9a-z_.-]+")
_NEVER_FORWARDED = frozenset(("connection", "content-type", "host", "te", "user-agent", REQUEST_ID))


@dataclass(frozen=True, slots=True)
class Allowed:
    """Keys that clients may set as `Grpc-Metadata-KEY`: names, and beginnings of names; "" allows all."""

    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Self:
        """From names in any case, of which some end in `*`."""
        lowered = [pattern.lower() for pattern in patterns]
        return cls(
            names=frozenset(pattern for pattern in lowered if not pattern.endswith("*")),
            prefixes=tuple(pattern[:-1] for pattern in lowered if pattern.endswith("*")),
        )

    def allows(self, key: str) -> bool:
        """Whether a client may set it; what is gRPC's, HTTP's or the gateway's own no setting allows."""
        return (
            (key in self.names or key.startswith(self.prefixes))
            and _KEY.fullmatch(key) is not None
            and key not in _NEVER_FORWARDED
            and not key.startswith(("grpc-", OWN_PREFIX))
        )


def request_id(given: str) -> str:
    """The id that the client gave, where it is one a log can hold; else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"


def about(call: Call) -> Metadata:
    """What the gateway itself says about a call."""
    return ((REQUEST_ID, call.request_id), (CLIENT_ADDRESS, call.address), (USER_AGENT, call.user_agent))


def to_metadata(headers: Iterable[tuple[bytes, bytes]], *, call: Call, allowed: Allowed) -> Metadata:
    """The metadata of the upstream call. Raises BadRequest for a header that metadata cannot hold."""
    found = list(about(call))
    for name, value in headers:
        if name in _FORWARDED:
            key = _FORWARDED[name]
            found.append((key, _text(key, value)))
        elif name.startswith(PREFIX):
            key = name[len(PREFIX) :].decode("latin-1")
            if allowed.allows(key):
                found.append((key, _binary(key, value) if key.endswith("-bin") else _text(key, value)))
    return tuple(found)


def seconds_of(timeout: str) -> float:
    """Seconds of a `Grpc-Timeout` header (gRPC over HTTP/2, Timeout), within what grpc.aio can take.

    Raises BadRequest where it is not one.
    """
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise BadRequest(f"Grpc-Timeout {timeout!r} is not up to 8 digits and one of H, M, S, m, u, n.")
    return min(max(int(found[1]) * _UNITS[found[2]], SHORTEST_SECONDS), LONGEST_SECONDS)


def initial_headers(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """An upstream's initial metadata as response headers."""
    return _headers(metadata, b"grpc-metadata-")


def trailing_headers(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """An upstream's trailing metadata as response headers."""
    return _headers(metadata, b"grpc-trailer-")


def _headers(metadata: Iterable[tuple[str, str | bytes]], prefix: bytes) -> Headers:
    return [
        (prefix + key.encode(), base64.b64encode(value) if isinstance(value, bytes) else value.encode("latin-1"))
        for key, value in metadata
        if key not in _NEVER_FORWARDED and key != CACHE_CONTROL and not key.startswith("grpc-")
    ]


def _text(name: str, value: bytes) -> str:
    text = value.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise BadRequest(f"Header {name!r} has characters that are not printable ASCII.")
    return text


def _binary(name: str, value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise BadRequest(f"Header {name!r} is not base64, which metadata ending in -bin must be.") from error
