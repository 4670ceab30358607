"""Texts as values of scalar fields, by the JSON mapping of Protocol Buffers (https://protobuf.dev/programming-guides/json).

Paths, query strings and JSON strings share these; every conversion raises ValueError for a text that is not of the
type.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FLOAT_BOUND", "INTEGER_RANGES", "Scalar", "from_text", "kind_of"]

Scalar = str | bytes | bool | int | float

FLOAT_BOUND = 2.0**128 - 2.0**103
"""What is nearer to no float than to infinity; the largest float's shortest text, 3.4028235e+38, is below it."""
INTEGER_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}

# Python's own int() and float() take more than JSON does: spaces, underscores, other scripts' digits.
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BOOLEANS = {"true": True, "false": False}


def from_text(field: FieldDescriptor, text: str) -> Scalar:
    """The value that a text means for a scalar or enum field."""
    return _CONVERSIONS[field.cpp_type](field, text)


def kind_of(field: FieldDescriptor) -> str:
    """What the field takes, for an error: `a number`."""
    if field.message_type is not None:
        return f"a {field.message_type.full_name}"
    return _KINDS.get(field.type) or "an integer from {} to {}".format(*INTEGER_RANGES[field.cpp_type])


def _string(field: FieldDescriptor, text: str) -> str | bytes:
    if field.type != FieldDescriptor.TYPE_BYTES:
        text.encode()  # an unpaired surrogate, which JSON can hold and UTF-8 cannot, is a ValueError
        return text
    encoded = text.rstrip("=")
    padding = -len(encoded) % 4
    if len(text) - len(encoded) not in {0, padding}:
        raise ValueError(text)
    try:
        return base64.b64decode(encoded.replace("-", "+").replace("_", "/") + "=" * padding, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def _boolean(_field: FieldDescriptor, text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text]


def _integer(field: FieldDescriptor, text: str) -> int:
    low, high = INTEGER_RANGES[field.cpp_type]
    number = int(text) if _INTEGER.fullmatch(text) else _decimal(text)
    if not low <= number <= high or number != int(number):
        raise ValueError(text)
    return int(number)


def _decimal(text: str) -> Decimal:
    """An integer written as `1e3` or `1.0`, which the mapping allows, exactly."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    try:
        return Decimal(text)
    except InvalidOperation as error:  # its exponent has more than 18 digits
        raise ValueError(text) from error


def _float(field: FieldDescriptor, text: str) -> float:
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    number = float(text)
    if math.isinf(number) or (field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and abs(number) >= FLOAT_BOUND):
        raise ValueError(text)
    return number


def _enum(field: FieldDescriptor, text: str) -> int:
    enum = field.enum_type
    assert enum is not None
    value = enum.values_by_name.get(text)
    number = _integer(field, text) if value is None else value.number
    if enum.is_closed and number not in enum.values_by_number:
        raise ValueError(text)
    return number


_CONVERSIONS: dict[int, Callable[[FieldDescriptor, str], Scalar]] = {
    FieldDescriptor.CPPTYPE_STRING: _string,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
    FieldDescriptor.CPPTYPE_UINT32: _integer,
    FieldDescriptor.CPPTYPE_UINT64: _integer,
    FieldDescriptor.CPPTYPE_FLOAT: _float,
    FieldDescriptor.CPPTYPE_DOUBLE: _float,
    FieldDescriptor.CPPTYPE_ENUM: _enum,
}
_KINDS: dict[int, str] = {
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_BYTES: "base64",
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_ENUM: "the name or number of one of its values",
    FieldDescriptor.TYPE_FLOAT: "a number",
    FieldDescriptor.TYPE_STRING: "text",
}
