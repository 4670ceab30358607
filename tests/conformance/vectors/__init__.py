"""The vectors: what google/api/http.proto and the JSON mapping of Protocol Buffers ask, one fact each.

`clause` says where: `http: …` is google/api/http.proto, `json: …` is https://protobuf.dev/programming-guides/json,
`uri: …` is RFC 3986, `form: …` is the WHATWG URL standard's application/x-www-form-urlencoded, `gateway: …` is what
grpc-gateway does where those leave it open, and `ours: …` is a choice of this gateway's.
"""

from __future__ import annotations

from tests.conformance.vectors.answers import ANSWERED
from tests.conformance.vectors.bodies import BODIES
from tests.conformance.vectors.kinds import Accepted, Answered, Malformed, Refused, WellFormed
from tests.conformance.vectors.patches import PATCHES
from tests.conformance.vectors.paths import PATHS
from tests.conformance.vectors.queries import QUERIES
from tests.conformance.vectors.templates import MALFORMED, WELL_FORMED

__all__ = [
    "ANSWERED",
    "MALFORMED",
    "REQUESTS",
    "VECTORS",
    "WELL_FORMED",
    "Accepted",
    "Answered",
    "Malformed",
    "Refused",
    "WellFormed",
]

REQUESTS: tuple[Accepted | Refused, ...] = (*PATHS, *QUERIES, *BODIES, *PATCHES)
VECTORS = (*WELL_FORMED, *MALFORMED, *REQUESTS, *ANSWERED)
