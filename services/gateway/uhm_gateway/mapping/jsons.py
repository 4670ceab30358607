"""Decoded JSON as messages, by the JSON mapping of Protocol Buffers (https://protobuf.dev/programming-guides/json).

The same mapping as google.protobuf.json_format's, written anew because its errors do not say which field they are
about where the field is in a oneof or is `optional`, and for what `wellknown` says. Field names are taken as in the
.proto file and as in JSON.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from uhm_gateway.errors import BadRequest
from uhm_gateway.mapping.fields import check_oneof, fields_by_any_name, is_map
from uhm_gateway.mapping.jsontext import Real
from uhm_gateway.mapping.scalars import FLOAT_BOUND, INTEGER_RANGES, Scalar, from_text, kind_of
from uhm_gateway.mapping.wellknown import ANY, MAX_DEPTH, STRINGS, WELL_KNOWN, WRAPPERS, set_from_json, set_from_string

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["JsonReader"]

SHOWN_CHARACTERS = 80
_EMPTY = "google.protobuf.Empty"
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


class JsonReader:
    """Puts decoded JSON into messages; the pool is where the types of google.protobuf.Any come from.

    `at` is always the place in the body, and `depth` how many messages it is in. Everything raises BadRequest, naming
    the place that does not fit.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def merge(self, value: Any, message: Message, *, at: str = "", depth: int = 1) -> None:
        """Merges a value into a message."""
        if depth > MAX_DEPTH:
            raise BadRequest(f"The body is nested too deeply: a message may be in {MAX_DEPTH - 1} others.")
        if message.DESCRIPTOR.full_name in WELL_KNOWN:
            self._merge_well_known(value, message, at=at, depth=depth)
            return
        if not isinstance(value, dict):
            raise _misfit(message, value, at=at, takes="an object")
        known = fields_by_any_name(message.DESCRIPTOR)
        given: set[str] = set()
        for name, item in value.items():
            place = f"{at}.{name}" if at else name
            field = known.get(name)
            if field is None:
                raise BadRequest(f"Unknown field {place!r}: {message.DESCRIPTOR.full_name} has none of this name.")
            if field.name in given:
                raise BadRequest(f"Field {place!r} is given twice, in both of its spellings.")
            given.add(field.name)
            self.merge_field(item, message, field, at=place, depth=depth)

    def merge_field(self, value: Any, message: Message, field: FieldDescriptor, *, at: str, depth: int = 1) -> None:
        """Sets one field of a message; null leaves it as it is, but where null is a value of the field's type."""
        if value is None and (field.is_repeated or not _takes_null(field)):
            return
        check_oneof(message, field, at)
        if is_map(field):
            self._merge_map(value, message, field, at=at, depth=depth)
        elif field.is_repeated:
            self._merge_repeated(value, message, field, at=at, depth=depth)
        elif field.message_type is not None:
            part = getattr(message, field.name)
            part.SetInParent()
            self.merge(value, part, at=at, depth=depth + 1)
        else:
            setattr(message, field.name, _scalar(value, field, at=at))

    def _merge_repeated(self, value: Any, message: Message, field: FieldDescriptor, *, at: str, depth: int) -> None:
        if not isinstance(value, list):
            raise _misfit(message, value, at=at, takes="an array")
        items = getattr(message, field.name)
        if field.message_type is None:
            items.extend([_scalar(item, field, at=f"{at}[{index}]") for index, item in enumerate(value)])
            return
        for index, item in enumerate(value):
            self.merge(item, items.add(), at=f"{at}[{index}]", depth=depth + 1)

    def _merge_map(self, value: Any, message: Message, field: FieldDescriptor, *, at: str, depth: int) -> None:
        if not isinstance(value, dict):
            raise _misfit(message, value, at=at, takes="an object")
        kinds = fields_by_any_name(field.message_type)
        items = getattr(message, field.name)
        given = set()
        for name, item in value.items():
            place = f"{at}[{json.dumps(name)}]"
            key = _key(name, kinds["key"], at=at)
            if key in given:
                raise BadRequest(f"Field {place!r} is given twice, in two spellings of its key.")
            given.add(key)
            if kinds["value"].message_type is None:
                items[key] = _scalar(item, kinds["value"], at=place)
            else:
                self.merge(item, items[key], at=place, depth=depth + 2)  # with the message that is the entry

    def _merge_well_known(self, value: Any, message: Message, *, at: str, depth: int) -> None:
        descriptor = cast("Descriptor", message.DESCRIPTOR)
        try:
            if descriptor.full_name == ANY:
                self._merge_any(value, message, at=at, depth=depth)
            elif descriptor.full_name in WRAPPERS:
                setattr(message, "value", _scalar(value, descriptor.fields_by_name["value"], at=at))  # noqa: B010
            elif descriptor.full_name not in STRINGS:
                set_from_json(message, value, depth=depth)
            elif isinstance(value, str):
                set_from_string(message, value)
            else:
                raise _misfit(message, value, at=at)
        except RecursionError as error:
            raise BadRequest(f"{_place(at)} is nested too deeply.") from error
        except ValueError as error:
            raise _misfit(message, value, at=at) from error

    def _merge_any(self, value: Any, message: Any, *, at: str, depth: int) -> None:
        if not isinstance(value, dict):
            raise _misfit(message, value, at=at)
        if not value:
            return
        url = value.get("@type")
        packed = self._packed(url, at=at)
        rest = {name: item for name, item in value.items() if name != "@type"}
        name = packed.DESCRIPTOR.full_name
        if name in WELL_KNOWN or (name == _EMPTY and "value" in rest):
            if list(rest) != ["value"]:
                raise BadRequest(f"{_place(at)} holds a {name}, so it takes just '@type' and 'value'.")
            self.merge(rest["value"], packed, at=f"{at}.value" if at else "value", depth=depth + 1)
        else:
            self.merge(rest, packed, at=at, depth=depth + 1)
        if not packed.IsInitialized():
            missing = ", ".join(packed.FindInitializationErrors())
            raise BadRequest(f"{_place(at)} lacks what a {name} requires: {missing}.")
        message.type_url = url
        message.value = packed.SerializeToString(deterministic=True)

    def _packed(self, url: Any, *, at: str) -> Any:
        """An empty message of the type that a type URL names; what is before its last slash means nothing here."""
        prefix, _, name = url.rpartition("/") if isinstance(url, str) else ("", "", "")
        if not prefix or not name:
            hint = "It is like type.googleapis.com/package.Message."
            raise BadRequest(f"{_place(at)} is a google.protobuf.Any, whose '@type' is a type's URL.", hint=hint)
        try:
            descriptor = self._pool.FindMessageTypeByName(name)
        except (KeyError, ValueError) as error:
            raise BadRequest(f"{_place(at)} is of a type that is not known here: {_shown(url)}.") from error
        return message_factory.GetMessageClass(descriptor)()


def _key(name: str, field: FieldDescriptor, *, at: str) -> Scalar:
    try:
        return from_text(field, name)
    except ValueError as error:
        raise BadRequest(f"Field {at!r} takes {kind_of(field)} as key, not {_shown(name)}.") from error


def _scalar(value: Any, field: FieldDescriptor, *, at: str) -> Scalar:
    """The value of a scalar or enum field, or of one element of a repeated one."""
    kind = field.cpp_type
    try:
        if isinstance(value, bool) and kind == FieldDescriptor.CPPTYPE_BOOL:
            return value
        if isinstance(value, str) and kind != FieldDescriptor.CPPTYPE_BOOL:
            return from_text(field, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if kind in INTEGER_RANGES:
                return from_text(field, value.text if isinstance(value, Real) else str(value))
            if kind in _FLOATS:
                return _finite(value, field)
        if value is None and _takes_null(field):
            return 0
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{_place(at)} takes {kind_of(field)}, not {_shown(value)}.") from error
    raise BadRequest(f"{_place(at)} takes {kind_of(field)}, not {_shown(value)}.")


def _finite(value: float, field: FieldDescriptor) -> float:
    number = float(value)
    if math.isinf(number) or (field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and abs(number) >= FLOAT_BOUND):
        raise ValueError(value)
    return number


def _takes_null(field: FieldDescriptor) -> bool:
    """Whether null is a value of the field's type, not the absence of one."""
    if field.message_type is not None:
        return field.message_type.full_name == "google.protobuf.Value"
    return field.enum_type is not None and field.enum_type.full_name == "google.protobuf.NullValue"


def _misfit(message: Message, value: Any, *, at: str, takes: str = "") -> BadRequest:
    return BadRequest(f"{_place(at)} takes {takes or f'a {message.DESCRIPTOR.full_name}'}, not {_shown(value)}.")


def _place(at: str) -> str:
    return f"Field {at!r}" if at else "The body"


def _shown(value: Any) -> str:
    """A value for an error: short, and never looked into, since it may be as deep and as large as a body."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return f"{json.dumps(value[:SHOWN_CHARACTERS])[:-1]}…"
    return json.dumps(value)
