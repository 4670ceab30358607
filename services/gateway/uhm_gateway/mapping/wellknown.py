"""The well-known types whose JSON form is their own, but google.protobuf.Any, which needs a pool (see `jsons`).

Written anew beside google.protobuf.json_format's because that takes more than the mapping allows (offsets of 24 hours,
empty paths, other scripts' digits), takes no FieldMask in the names of the .proto file, which are what this gateway
prints, and counts JSON's depth instead of the messages', so that an upstream could not parse what it made.
"""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["ANY", "MAX_DEPTH", "STRINGS", "VALUES", "WELL_KNOWN", "WRAPPERS", "set_from_json", "set_from_string"]

MAX_DEPTH = 100
"""Messages inside each other: as many as parsers of Protocol Buffers take in any language."""

ANY = "google.protobuf.Any"
VALUE = "google.protobuf.Value"
STRINGS = frozenset(f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask"))
VALUES = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue"))
WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
WELL_KNOWN = STRINGS | VALUES | WRAPPERS | {ANY}

_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
_NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*|\*)"
_MASK_PATH = re.compile(rf"{_NAME}(?:\.{_NAME})*")
_UPPER = re.compile("[A-Z]")


def set_from_string(message: Any, text: str) -> None:
    """Sets a Timestamp (RFC 3339), a Duration (`1.5s`) or a FieldMask (`a,bC.d` or `a,b_c.d`). Raises ValueError."""
    name = message.DESCRIPTOR.name
    if name == "FieldMask":
        message.paths.extend([_mask_path(path) for path in text.split(",")] if text else [])
        return
    if not (_TIMESTAMP if name == "Timestamp" else _DURATION).fullmatch(text):
        raise ValueError(text)
    message.FromJsonString(text)


def set_from_json(message: Any, value: Any, *, depth: int = 1) -> None:
    """Sets a Struct, a Value or a ListValue to decoded JSON; `depth` is the message's own.

    Raises ValueError, RecursionError where it is deeper than MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    match message.DESCRIPTOR.name:
        case "Struct" if isinstance(value, dict):
            message.SetInParent()
            for key, item in value.items():
                set_from_json(message.fields[key], item, depth=depth + 2)  # with the message that is the entry
        case "ListValue" if isinstance(value, list):
            message.SetInParent()
            for item in value:
                set_from_json(message.values.add(), item, depth=depth + 1)
        case "Value":
            _set_value(message, value, depth)
        case _:
            raise ValueError(value)


def _set_value(message: Any, value: Any, depth: int) -> None:
    if value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, dict):
        set_from_json(message.struct_value, value, depth=depth + 1)
    elif isinstance(value, list):
        set_from_json(message.list_value, value, depth=depth + 1)
    else:
        message.number_value = _finite(value)


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(value) from error
    if math.isinf(number):
        raise ValueError(value)
    return number


def _mask_path(path: str) -> str:
    """A path in the names of the .proto file; one that has an underscore is in them already."""
    if not _MASK_PATH.fullmatch(path):
        raise ValueError(path)
    return path if "_" in path else _UPPER.sub(lambda found: f"_{found.group().lower()}", path)
