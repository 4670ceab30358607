"""Failed calls as HTTP answers: one table from gRPC codes to HTTP statuses, and the JSON form of google.rpc.Status.

The table is the one in google/rpc/code.proto ("HTTP Mapping"). Headers say the rest: how to authenticate (RFC 6750,
section 3), when to come back (RFC 9110, section 10.2.3), which methods and encodings are taken, and the metadata that
the service sent with its error.
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from uhm_gateway.errors import MethodNotAllowed, UnsupportedMediaType
from uhm_gateway.http.metadata import Headers, initial_headers, trailing_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.descriptor_pool import DescriptorPool

    from uhm_common.errors import UhmError

__all__ = ["HTTP_STATUS", "STATUS_DETAILS", "Failure", "failure_of_call", "failure_of_error", "http_status"]

STATUS_DETAILS = "grpc-status-details-bin"
DEFAULT_RETRY_SECONDS = 1
REALM = b'Bearer realm="api"'
# grpc's and grpc-go's words for a request or an answer that is larger than one side takes; nothing was asked too often.
_LARGE_REQUEST = re.compile(r"(CLIENT: Sent|SERVER: Received|grpc: received) message (larger than|after decom)")
_LARGE_ANSWER = re.compile(
    r"(CLIENT: Received message|Decompressed message|SERVER: Sent message|grpc: trying to send message) larger than max"
)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")

HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


def http_status(code: grpc.StatusCode) -> int:
    """The HTTP status of a gRPC code."""
    return HTTP_STATUS[code]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed call as it is told through REST."""

    code: grpc.StatusCode
    message: str
    http_status: int
    details: tuple[AnyMessage, ...] = ()
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())

    def to_json(self, pool: DescriptorPool) -> dict[str, Any]:
        """As google.rpc.Status in JSON; `pool` knows the details' types."""
        return {
            "code": self.code.value[0],
            "message": self.message,
            "details": [_detail(detail, pool) for detail in self.details],
        }


def failure_of_call(error: grpc.aio.AioRpcError, *, token_sent: bool = False) -> Failure:
    """What an upstream answered; details come from the trailer that carries google.rpc.Status."""
    code = error.code()
    trailers: list[Any] = list(error.trailing_metadata() or ())
    details = _details(trailers)
    status = http_status(code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        words = error.details() or ""
        status = 413 if _LARGE_REQUEST.search(words) else 500 if _LARGE_ANSWER.search(words) else status
    sent: Headers = [*initial_headers(error.initial_metadata() or ()), *trailing_headers(trailers)]
    return Failure(
        code=code,
        message=error.details() or code.name,
        http_status=status,
        details=details,
        headers=(
            *_challenge(status, details, token_sent=token_sent),
            *_retry_after(status, _retry_seconds(trailers, details)),
            *sent,
        ),
    )


def failure_of_error(error: UhmError, *, token_sent: bool = False) -> Failure:
    """What the gateway itself refuses."""
    status = getattr(error, "http_status", None) or http_status(error.code)
    as_status = error.to_status()
    details = tuple(as_status.details)
    headers = [
        *_challenge(status, details, token_sent=token_sent),
        *_retry_after(status, _retry_seconds((), details)),
    ]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, UnsupportedMediaType) and error.accept_encoding:
        headers.append((b"accept-encoding", error.accept_encoding.encode()))
    return Failure(
        code=error.code, message=as_status.message, http_status=status, details=details, headers=tuple(headers)
    )


def _challenge(status: int, details: Iterable[AnyMessage], *, token_sent: bool) -> Headers:
    """How to authenticate, or, where the token is good and not enough, what scope it lacks."""
    if status == 401:
        return [(b"www-authenticate", REALM + (b', error="invalid_token"' if token_sent else b""))]
    if status == 403 and _SCOPE.fullmatch(scope := _error_info(details).metadata.get("scope", "")):
        return [(b"www-authenticate", REALM + b', error="insufficient_scope", scope="' + scope.encode() + b'"')]
    return []


def _retry_after(status: int, seconds: int) -> Headers:
    return [(b"retry-after", str(seconds).encode())] if status in {429, 503} else []


def _error_info(details: Iterable[AnyMessage]) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for detail in details:
        if detail.Is(info.DESCRIPTOR):
            with contextlib.suppress(DecodeError):
                detail.Unpack(info)
            break
    return info


def _details(trailers: Iterable[tuple[str, str | bytes]]) -> tuple[AnyMessage, ...]:
    for key, value in trailers:
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return tuple(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()


def _retry_seconds(trailers: Iterable[tuple[str, str | bytes]], details: Iterable[AnyMessage]) -> int:
    """What the service asks for, as google.rpc.RetryInfo or as a `retry-after` trailer."""
    retry = error_details_pb2.RetryInfo()
    for detail in details:
        if detail.Is(retry.DESCRIPTOR):
            with contextlib.suppress(DecodeError):
                detail.Unpack(retry)
            asked: float = retry.retry_delay.ToNanoseconds() / 1e9
            return max(DEFAULT_RETRY_SECONDS, math.ceil(asked))
    for key, value in trailers:
        if key == "retry-after" and isinstance(value, str) and value.isdecimal():
            return int(value)
    return DEFAULT_RETRY_SECONDS


def _detail(detail: AnyMessage, pool: DescriptorPool) -> dict[str, Any]:
    try:
        shown: dict[str, Any] = json_format.MessageToDict(
            detail, preserving_proto_field_name=True, descriptor_pool=pool
        )
    except (TypeError, ValueError, DecodeError):
        # A type that is not in the descriptor set: its bytes are all there is to show.
        return {"@type": detail.type_url, "value": base64.b64encode(detail.value).decode()}
    return shown
