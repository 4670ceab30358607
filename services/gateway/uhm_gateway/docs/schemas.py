"""JSON Schemas (draft 2020-12) of messages, as the JSON mapping of Protocol Buffers writes them.

A message is described twice where it travels both ways, because the two differ:

- in an answer, fields without presence are always there, and a later version may add others;
- in a request, nothing is required, and unknown fields are refused.

What requests may say in another way too (camelCase names, numbers as text, enums by number, null for an absent field)
is left out: a schema gives the one form that every client can keep to.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from uhm_gateway.mapping.bind import HTTP_BODY
from uhm_gateway.mapping.fields import WELL_KNOWN, fields_by_any_name, is_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.descriptor import Descriptor, EnumDescriptor

__all__ = ["STATUS", "Direction", "Schema", "Schemas", "oneof_of"]

Schema = dict[str, Any]

STATUS = "google.rpc.Status"
_INT64, _UINT64 = "^-?[0-9]{1,19}$", "^[0-9]{1,20}$"
_NOT_FINITE: Schema = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64", "pattern": _INT64},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64", "pattern": _UINT64},
    FieldDescriptor.CPPTYPE_FLOAT: {"anyOf": [{"type": "number", "format": "float"}, _NOT_FINITE]},
    FieldDescriptor.CPPTYPE_DOUBLE: {"anyOf": [{"type": "number", "format": "double"}, _NOT_FINITE]},
}
_MESSAGES: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Paths in camelCase, separated by commas."},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Any": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
}
_MAP_KEYS: Mapping[int, str] = {
    FieldDescriptor.CPPTYPE_BOOL: "^(true|false)$",
    FieldDescriptor.CPPTYPE_INT32: _INT64,
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT32: _UINT64,
    FieldDescriptor.CPPTYPE_UINT64: _UINT64,
}


class Direction(StrEnum):
    """Which way a message travels."""

    REQUEST = "request"
    RESPONSE = "response"


class Schemas:
    """Schemas by reference: `components` holds what has been referred to."""

    def __init__(self, comments: Mapping[str, str], *, answered: Iterable[Descriptor]) -> None:
        """`answered` are the messages of all answers, so that a request's variant of them gets a name of its own."""
        self.components: dict[str, Schema] = {}
        self._comments = comments
        self._answered = frozenset(name for message in answered for name in _reachable(message, set()))

    def message(self, message: Descriptor, direction: Direction) -> Schema:
        """The schema of a message: a reference, or what its JSON is where it has a form of its own."""
        name = message.full_name
        if name in _MESSAGES:
            return dict(_MESSAGES[name])
        if name in WELL_KNOWN:
            wrapped = self._single(message.fields_by_name["value"], direction)
            return {"anyOf": [wrapped, {"type": "null"}]} if direction is Direction.REQUEST else wrapped
        component = f"{name}-input" if direction is Direction.REQUEST and name in self._answered else name
        if component not in self.components:
            self.components[component] = {}
            self.components[component] = self.of_fields(message, message.fields, direction)
        return {"$ref": f"#/components/schemas/{component}"}

    def of_fields(self, message: Descriptor, fields: Iterable[FieldDescriptor], direction: Direction) -> Schema:
        """The schema of an object with some of a message's fields."""
        chosen = list(fields)
        schema: Schema = {
            "type": "object",
            **self._described(message.full_name),
            "properties": {field.name: self.field(field, direction) for field in chosen},
        }
        if message.GetOptions().deprecated:
            schema["deprecated"] = True
        if direction is Direction.REQUEST:
            schema["additionalProperties"] = False
        elif always := [field.name for field in chosen if not field.has_presence]:
            schema["required"] = always
        return schema

    def field(self, field: FieldDescriptor, direction: Direction) -> Schema:
        """The schema of a field's value, described."""
        if is_map(field):
            kinds = fields_by_any_name(field.message_type)
            schema: Schema = {"type": "object", "additionalProperties": self._single(kinds["value"], direction)}
            if pattern := _MAP_KEYS.get(kinds["key"].cpp_type):
                schema["propertyNames"] = {"pattern": pattern}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, direction)}
        else:
            schema = self._single(field, direction)
        schema |= self._described(field.full_name, suffix=_exclusion(field))
        options = field.GetOptions()
        if options.deprecated:
            schema["deprecated"] = True
        if options.debug_redact and schema.get("type") == "string":
            schema["format"] = "password"
        return schema

    def status(self) -> Schema:
        """A reference to google.rpc.Status, the form of every error."""
        self.components[STATUS] = {
            "type": "object",
            "description": "What went wrong.",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "integer", "format": "int32", "description": "The gRPC status code."},
                "message": {"type": "string", "description": "What was wrong and what to do, as sentences."},
                "details": {
                    "type": "array",
                    "description": "More for programs, such as google.rpc.ErrorInfo.",
                    "items": dict(_MESSAGES["google.protobuf.Any"]),
                },
            },
        }
        return {"$ref": f"#/components/schemas/{STATUS}"}

    def _single(self, field: FieldDescriptor, direction: Direction) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type, direction)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return dict(_BASE64)
        return dict(_SCALARS.get(field.cpp_type) or {"type": "string"})

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == "google.protobuf.NullValue":
            return {"type": "null"}
        scope = enum.full_name.removesuffix(enum.name)
        told = {value.name: self._comments.get(f"{scope}{value.name}", "") for value in enum.values}
        lines = "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in told.items() if text)
        self.components[enum.full_name] = {
            "type": "string",
            "enum": list(told),
            **self._described(enum.full_name, suffix=lines),
        }
        return {"$ref": f"#/components/schemas/{enum.full_name}"}

    def _described(self, name: str, *, suffix: str = "") -> Schema:
        text = "\n\n".join(part for part in (self._comments.get(name, ""), suffix) if part)
        return {"description": text} if text else {}


def oneof_of(field: FieldDescriptor) -> tuple[str, ...]:
    """The names of the fields of which at most one is given, this one among them; none where it is free of others."""
    oneof = field.containing_oneof
    return tuple(each.name for each in oneof.fields) if oneof is not None and len(oneof.fields) > 1 else ()


def _exclusion(field: FieldDescriptor) -> str:
    names = ", ".join(f"`{name}`" for name in oneof_of(field))
    return f"At most one of {names}." if names else ""


def _reachable(message: Descriptor, seen: set[str]) -> Iterator[str]:
    if message.full_name in seen or message.full_name in WELL_KNOWN or message.full_name == HTTP_BODY:
        return
    seen.add(message.full_name)
    yield message.full_name
    for field in message.fields:
        if field.message_type is not None:
            yield from _reachable(field.message_type, seen)
