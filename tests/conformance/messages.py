"""Any message of a type, for property-based tests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from tests.conformance.api import mapping
from uhm_gateway.mapping.fields import WELL_KNOWN, is_map
from uhm_gateway.mapping.scalars import INTEGER_RANGES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["messages"]

NESTED = 2
PLAIN = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(PLAIN, max_size=8)
# Struct has doubles only, and google.protobuf.json_format can print no other.
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
SECONDS = {"Timestamp": (-62135596800, 253402300799), "Duration": (0, 315575999999)}
PATHS = st.lists(st.from_regex(r"[a-z]{1,3}(_[a-z]{1,3})?(\.[a-z]{1,3})?", fullmatch=True), max_size=3)


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, *, in_query: bool = False, depth: int = 0) -> Any:
    """A message; `in_query`: one that parameters can carry, without repeated messages and without empty ones."""
    message: Any = message_factory.GetMessageClass(descriptor)()
    fields = [field for field in descriptor.fields if _fits(field, in_query)]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=6)) if fields else []
    for field in {field.name: field for field in chosen}.values():
        nested = field.message_type is not None and field.message_type.full_name == descriptor.full_name
        if not (nested and depth >= NESTED):
            _set(draw, message, field, in_query=in_query, depth=depth + 1)
    return message


def _fits(field: Any, in_query: bool) -> bool:
    kind = field.message_type
    if not in_query or kind is None:
        return True
    if is_map(field):
        kind = kind.fields_by_name["value"].message_type
        return kind is None or kind.full_name in WELL_KNOWN
    if kind.full_name in {"google.protobuf.Any", "google.protobuf.Empty"}:
        return False
    return not field.is_repeated or kind.full_name in WELL_KNOWN


def _set(draw: st.DrawFn, message: Any, field: Any, *, in_query: bool, depth: int) -> None:
    target = getattr(message, field.name)
    if is_map(field):
        kinds = field.message_type.fields_by_name
        for key in draw(st.lists(_scalars(kinds["key"]), max_size=2)):
            if kinds["value"].message_type is None:
                target[key] = draw(_scalars(kinds["value"]))
            else:
                target[key].CopyFrom(draw(_parts(kinds["value"].message_type, in_query, depth)))
    elif field.is_repeated:
        one = _scalars(field) if field.message_type is None else _parts(field.message_type, in_query, depth)
        target.extend(draw(st.lists(one, max_size=3)))
    elif field.message_type is None:
        setattr(message, field.name, draw(_scalars(field)))
    else:
        part = draw(_parts(field.message_type, in_query, depth))
        if not in_query or field.message_type.full_name in WELL_KNOWN or part.ByteSize():
            target.CopyFrom(part)
            target.SetInParent()


def _scalars(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        known = st.sampled_from(sorted(field.enum_type.values_by_number))
        return known if len(field.enum_type.values) == 1 else known | st.integers(-(1 << 31), (1 << 31) - 1)
    if field.cpp_type in INTEGER_RANGES:
        return st.integers(*INTEGER_RANGES[field.cpp_type])
    return {
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32).map(_one_nan),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats().map(_one_nan),
        FieldDescriptor.CPPTYPE_STRING: st.binary(max_size=8) if field.type == FieldDescriptor.TYPE_BYTES else TEXTS,
    }[field.cpp_type]


def _one_nan(value: float) -> float:
    """Of all that are not a number, the one that has a text."""
    return math.nan if math.isnan(value) else value


def _parts(descriptor: Any, in_query: bool, depth: int) -> st.SearchStrategy[Any]:
    special = _SPECIAL.get(descriptor.name) if descriptor.file.package == "google.protobuf" else None
    if special is None:
        return messages(descriptor, in_query=in_query, depth=depth)
    return special(message_factory.GetMessageClass(descriptor))


def _moments(kind: Any) -> st.SearchStrategy[Any]:
    seconds = st.integers(*SECONDS[kind.DESCRIPTOR.name])
    return st.builds(lambda at, nanos: kind(seconds=at, nanos=nanos), seconds, st.integers(0, 999_999_999))


def _json_values(kind: Any) -> st.SearchStrategy[Any]:
    values = {
        "Struct": st.dictionaries(TEXTS, JSON, max_size=3),
        "ListValue": st.lists(JSON, max_size=3),
        "Value": JSON,
    }[kind.DESCRIPTOR.name]
    return values.map(lambda value: json_format.ParseDict(value, kind()))


def _anys(kind: Any) -> st.SearchStrategy[Any]:
    def packed(part: Any) -> Any:
        made = kind()
        made.Pack(part, deterministic=True)
        return made

    return st.builds(kind) | messages(mapping().api.pool.FindMessageTypeByName("conformance.v1.Upload")).map(packed)


_SPECIAL: dict[str, Callable[[Any], st.SearchStrategy[Any]]] = {
    "Timestamp": _moments,
    "Duration": _moments,
    "FieldMask": lambda kind: PATHS.map(lambda paths: kind(paths=paths)),
    "Struct": _json_values,
    "ListValue": _json_values,
    "Value": _json_values,
    "Any": _anys,
}
