"""What the gateway itself refuses, as leaves of the common tree.

    UhmError
    ├── ConfigurationError       descriptors, routes or mappings that do not fit together; ends the start
    │   └── MalformedTemplate    a path template that is not in the grammar of google.api.http
    ├── BadRequest               400: path, query or body that do not make the method's message
    ├── UnknownPath              404: no binding has this path
    ├── MethodNotAllowed         405: bindings have this path, with other HTTP methods
    ├── BodyTooSlow              408
    ├── BodyTooLarge             413
    └── UnsupportedMediaType     415

`http_status` is set only where the gRPC code's place in the standard table (see `status`) says too little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import grpc

from uhm_common.errors import InvalidArgument, NotFound, ResourceExhausted, UhmError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BadRequest",
    "BodyTooLarge",
    "BodyTooSlow",
    "ConfigurationError",
    "MalformedTemplate",
    "MethodNotAllowed",
    "UnknownPath",
    "UnsupportedMediaType",
]


class ConfigurationError(UhmError):
    """Descriptors, routes or mappings that do not fit together."""


class MalformedTemplate(ConfigurationError):
    """A path template that is not in the grammar; `position` counts characters from 0."""

    def __init__(self, template: str, *, position: int, problem: str) -> None:
        super().__init__(f"Path template {template!r} is malformed at position {position}: {problem}.")
        self.position = position


class BadRequest(InvalidArgument):
    """The request does not make a message of the method's type."""


class UnknownPath(NotFound):
    """No binding has this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"Nothing answers at {path!r}.", hint="GET / lists what does.")


class MethodNotAllowed(UhmError):
    """Bindings have this path, with the HTTP methods in `allowed`."""

    code = grpc.StatusCode.UNIMPLEMENTED
    http_status: ClassVar[int] = 405

    def __init__(self, method: str, *, path: str, allowed: Iterable[str]) -> None:
        found = set(allowed)
        self.allowed = tuple(sorted(found | {"HEAD"} if "GET" in found else found))
        super().__init__(f"{path!r} does not answer {method}.", hint=f"It answers {', '.join(self.allowed)}.")


class BodyTooSlow(UhmError):
    """The request's body trickles."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status: ClassVar[int] = 408


class BodyTooLarge(ResourceExhausted):
    """The request's body is over the limit, in bytes."""

    http_status: ClassVar[int] = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request's body is larger than {limit} bytes.")


class UnsupportedMediaType(InvalidArgument):
    """The body's content type or encoding is not taken; `accept_encoding` are the encodings that are."""

    http_status: ClassVar[int] = 415

    def __init__(self, message: str, *, hint: str = "", accept_encoding: str = "") -> None:
        super().__init__(message, hint=hint)
        self.accept_encoding = accept_encoding
