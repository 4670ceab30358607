"""What can go wrong, as one tree, and how each leaf is told to a client.

    UhmError
    ├── InvalidArgument      the request cannot be right, whatever the state
    ├── Unauthenticated      no token, or one that is not valid
    ├── PermissionDenied     a valid token that may not do this
    ├── NotFound
    ├── AlreadyExists
    ├── FailedPrecondition   right in itself, but not in this state
    ├── ResourceExhausted    a bound was reached
    ├── Unavailable          something this needs does not answer; trying again may help
    └── InternalError        a fault of ours

A service derives its own leaves from these. A message says what was wrong, with which value; the hint says what to do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import grpc
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = [
    "AlreadyExists",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "UhmError",
    "Unauthenticated",
    "Unavailable",
]

DOMAIN = "uhmalguhm"


class UhmError(Exception):
    """An error with a gRPC status code, a sentence for the user, a hint, and fields for the log.

    `retry_after` is after how many seconds the same call may succeed, where that is known.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    @property
    def reason(self) -> str:
        """A constant a program can compare: the class's name in the form of google.rpc.ErrorInfo.reason."""
        name = type(self).__name__
        return "".join(f"_{char}" if char.isupper() and at else char for at, char in enumerate(name)).upper()

    def to_status(self) -> status_pb2.Status:
        """As google.rpc.Status with an ErrorInfo detail, and a RetryInfo, in whole seconds, where that is known."""
        fields = {name: str(value) for name, value in self.fields.items()}
        details: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=fields)]
        if self.retry_after is not None:
            delay = duration_pb2.Duration(seconds=math.ceil(self.retry_after))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=code_pb2.Code.Value(self.code.name), message=str(self))
        for detail in details:
            status.details.add().Pack(detail)
        return status


class InvalidArgument(UhmError):
    """The request cannot be right, whatever the state."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(UhmError):
    """No token, or one that is not valid."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(UhmError):
    """A valid token that may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(UhmError):
    """There is no such thing, or it is not the caller's."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(UhmError):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(UhmError):
    """Right in itself, but not in this state."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(UhmError):
    """A bound was reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(UhmError):
    """Something that this needs does not answer."""

    code = grpc.StatusCode.UNAVAILABLE


class InternalError(UhmError):
    """A fault of ours."""
