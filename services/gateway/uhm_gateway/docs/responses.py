"""Which HTTP statuses a method answers, and what each means.

Where a method says what it asks of its callers, its statuses are known: those that the gateway and every service give
by themselves, and those of the gRPC codes that the method's comment names (`Fails with NOT_FOUND where …`). Other
methods may answer any code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import grpc

from uhm_gateway.http.status import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uhm_gateway.docs.operations import Operation
    from uhmalguhm.access.v1.access_pb2 import Access

__all__ = ["HEADERS", "MEANINGS", "error_response", "errors_of", "first_sentence", "header_refs"]

MEANINGS: Mapping[int, str] = {
    400: "The request is not one that this takes, or not in the present state.",
    401: "There is no token, or it is not valid.",
    403: "The token is valid, but may not do this.",
    404: "There is no such thing, or it is not the caller's.",
    408: "The body stopped, or came too slowly.",
    409: "It is there already, or something else is changing it.",
    413: "The body is too large.",
    414: "The path and its query are too long.",
    415: "The body is of a type, or in an encoding, that is not taken.",
    429: "A limit was reached.",
    431: "There are too many headers, or they are too long.",
    499: "The call was cancelled.",
    500: "A fault on this side.",
    501: "The service does not know this method.",
    503: "A service that this needs does not answer, or is overloaded.",
    504: "The answer did not come within the deadline.",
}
HEADERS: Mapping[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "Names this request in the logs: what the client sent, else a new one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {
        "description": "The scheme that is asked for, and what is wrong with the token that was sent (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
    },
    "WWW-Authenticate-scope": {
        "description": "Where an API key lacks a scope: which one (RFC 6750).",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "After how many seconds to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "ETag": {
        "description": "Names this answer; sent back as If-None-Match it spares the same answer.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_EXTRA_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "WWW-Authenticate"},
    403: {"WWW-Authenticate": "WWW-Authenticate-scope"},
    429: {"Retry-After": "Retry-After"},
    503: {"Retry-After": "Retry-After"},
}
_ALWAYS = frozenset((400, 414, 429, 431, 500, 503, 504))
_CODE = re.compile(r"\b(" + "|".join(code.name for code in grpc.StatusCode if code.name != "OK") + r")\b")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")


def errors_of(operation: Operation, access: Access | None) -> dict[int, str]:
    """What each status that the operation may answer, apart from success, means there."""
    if access is None:
        return dict(MEANINGS)
    statuses = set(_ALWAYS)
    if not access.public:
        statuses |= {401, 403}
    if access.bearer:
        statuses.add(401)
    if operation.in_path:
        statuses.add(404)
    if access.idempotency_key:
        statuses.add(409)
    if operation.body is not None:
        statuses |= {408, 413, 415}
    return dict(sorted(({status: MEANINGS[status] for status in statuses} | _told(operation.method.comment)).items()))


def error_response(status: int, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The Response Object of an error."""
    headers = header_refs(_EXTRA_HEADERS.get(status, {}))
    return {"description": meaning, "headers": headers, "content": {"application/json": {"schema": schema}}}


def header_refs(extra: Mapping[str, str]) -> dict[str, Any]:
    """The Header Objects of an answer: those of every one, and others by their name and their component's."""
    names = {"x-request-id": "x-request-id", **extra}
    return {name: {"$ref": f"#/components/headers/{component}"} for name, component in names.items()}


def first_sentence(text: str) -> tuple[str, str]:
    """A comment's first sentence in one line, and all that follows."""
    first, *rest = _SENTENCE_END.split(text.strip(), maxsplit=1)
    return " ".join(first.split()), rest[0] if rest else ""


def _told(comment: str) -> dict[int, str]:
    """The sentences of a comment that name codes, by the codes' statuses."""
    found: dict[int, list[str]] = {}
    for sentence in _SENTENCE_END.split(comment):
        for name in _CODE.findall(sentence):
            told = found.setdefault(HTTP_STATUS[grpc.StatusCode[name]], [])
            if (text := " ".join(sentence.split())) not in told:
                told.append(text)
    return {status: " ".join(told) for status, told in found.items()}
