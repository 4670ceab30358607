"""The kinds of vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uhm_gateway.mapping.template import Segment, Variable

__all__ = ["JSON", "Accepted", "Answered", "Malformed", "Refused", "Vector", "WellFormed"]

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """What all have: a name of its own, and where the fact is written."""

    id: str
    clause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WellFormed(Vector):
    """A template, and what it consists of."""

    text: str
    segments: tuple[Segment, ...]
    variables: tuple[Variable, ...] = ()
    verb: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed(Vector):
    """A template that is none, where it goes wrong, and why."""

    text: str
    position: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Vector):
    """A request (`GET /v1/one/x?number=1`), the method that it calls and, in text format, the message that it sends."""

    request: str
    method: str
    message: str = ""
    body: bytes = b""
    content_type: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Vector):
    """A request, the status that it gets, and what the error names."""

    request: str
    names: str
    status: int = 400
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Vector):
    """A message in text format that answers a request, and the body that the client gets.

    A `dict` is what must be in the object, `absent` what must not; other values are the whole body, bytes as they are.
    """

    request: str
    message: str
    body: Any
    absent: tuple[str, ...] = ()
    content_type: str = JSON
