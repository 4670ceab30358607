"""Messages as JSON values, by a printer that is made once for each message type.

google.protobuf.json_format finds out anew for every message what each of its fields is. Here that is done once: a type
becomes a list of getters and printers, which takes a third of the time. The values are the same, with proto names
and with fields without presence always printed; well-known types, extensions and groups are left to json_format.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal.type_checkers import ToShortestFloat

from uhm_gateway.fields import WELL_KNOWN, is_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["Printers"]

_NULL = "google.protobuf.NullValue"


class Printers:
    """The printers of a pool's message types, each made when first wanted."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._by_name: dict[str, Callable[[Any], Any]] = {}

    def of(self, descriptor: Descriptor) -> Callable[[Any], Any]:
        """The printer of a message type; it raises ValueError for what JSON cannot hold."""
        made = self._by_name.get(descriptor.full_name)
        if made is None:
            if _is_regular(descriptor):
                # Types can contain themselves, so that the printer is known before its fields are.
                fields: list[tuple[str, bool, Callable[[Any], Any] | None]] = []
                made = self._by_name[descriptor.full_name] = _printer(fields)
                fields.extend((field.name, field.has_presence, self._of_field(field)) for field in descriptor.fields)
            else:
                made = self._by_name[descriptor.full_name] = self._by_json_format
        return made

    def _by_json_format(self, message: Message) -> Any:
        return json_format.MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            descriptor_pool=self._pool,
        )

    def _of_field(self, field: FieldDescriptor) -> Callable[[Any], Any] | None:
        """The printer of a field's value; None where the value is its own JSON."""
        if is_map(field):
            assert field.message_type is not None
            return _map_printer(self._of_value(field.message_type.fields_by_name["value"]))
        one = self._of_value(field)
        if not field.is_repeated:
            return one
        return list if one is None else lambda values: [one(value) for value in values]

    def _of_value(self, field: FieldDescriptor) -> Callable[[Any], Any] | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            return _enum_printer(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda value: base64.b64encode(value).decode()
        return _NUMBERS.get(field.cpp_type)


def _is_regular(descriptor: Descriptor) -> bool:
    return (
        descriptor.full_name not in WELL_KNOWN
        and not descriptor.is_extendable
        and all(field.type != FieldDescriptor.TYPE_GROUP for field in descriptor.fields)
    )


def _printer(fields: list[tuple[str, bool, Callable[[Any], Any] | None]]) -> Callable[[Any], Any]:
    """Prints a message by its fields: each one's name, whether it has presence, and its value's printer."""

    def print_message(message: Any) -> dict[str, Any]:
        shown = {}
        for name, has_presence, print_value in fields:
            if has_presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            shown[name] = value if print_value is None else print_value(value)
        return shown

    return print_message


def _map_printer(print_value: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    def print_map(entries: Any) -> dict[str, Any]:
        return {_key(key): entries[key] if print_value is None else print_value(entries[key]) for key in entries}

    return print_map


def _key(key: str | bool | int) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _enum_printer(enum: EnumDescriptor) -> Callable[[Any], Any]:
    """Prints a value by its name, one without a name as its number."""
    if enum.full_name == _NULL:
        return lambda _: None
    names = {value.number: value.name for value in reversed(enum.values)}  # of aliases the first
    return lambda number: names.get(number, number)


def _special(value: float) -> str:
    """The name of a number that JSON has not; empty for all others."""
    if math.isfinite(value):
        return ""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


# JavaScript's numbers hold 53 bits, so that larger ones are strings; a float has fewer digits than the double it is in.
_NUMBERS: dict[int, Callable[[Any], Any]] = {
    FieldDescriptor.CPPTYPE_INT64: str,
    FieldDescriptor.CPPTYPE_UINT64: str,
    FieldDescriptor.CPPTYPE_FLOAT: lambda value: _special(value) or ToShortestFloat(value),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda value: _special(value) or value,
}
