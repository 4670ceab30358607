"""Messages as JSON texts, by a printer that is made once for each message type.

google.protobuf.json_format finds out anew for every message what each of its fields is, and json what each value is.
Here that is done once: a type becomes a list of getters and printers, which takes a fifth of the time. The values are
the same, with proto names and with fields without presence always printed; well-known types, extensions and groups are
left to json_format.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal.type_checkers import ToShortestFloat

from uhm_gateway.mapping.fields import WELL_KNOWN, is_map

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["Printer", "Printers", "to_json"]

Printer = Callable[[Any], str]

_NULL = "google.protobuf.NullValue"
# What is encoded is made for it and holds nothing twice, so that nobody need look for circles.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def to_json(value: Any) -> str:
    """A value as compact JSON. Raises ValueError for what JSON cannot hold."""
    return _ENCODER.encode(value)


class Printers:
    """The printers of a pool's message types, each made when first wanted."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._by_name: dict[str, Printer] = {}

    def of(self, descriptor: Descriptor) -> Printer:
        """The printer of a message type; it raises ValueError for what JSON cannot hold."""
        made = self._by_name.get(descriptor.full_name)
        if made is None:
            if _is_regular(descriptor):
                # Types can contain themselves, so that the printer is known before its fields are.
                fields: list[tuple[str, str, bool, Printer]] = []
                made = self._by_name[descriptor.full_name] = _printer(fields)
                fields.extend(
                    (field.name, f"{_quoted(field.name)}:", field.has_presence, self.of_field(field))
                    for field in descriptor.fields
                )
            else:
                made = self._by_name[descriptor.full_name] = self._by_json_format
        return made

    def of_field(self, field: FieldDescriptor) -> Printer:
        """The printer of a field's value."""
        if is_map(field):
            assert field.message_type is not None
            return _map_printer(self._of_value(field.message_type.fields_by_name["value"]))
        one = self._of_value(field)
        return _list_printer(one) if field.is_repeated else one

    def _by_json_format(self, message: Message) -> str:
        return to_json(
            json_format.MessageToDict(
                message,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
                descriptor_pool=self._pool,
            )
        )

    def _of_value(self, field: FieldDescriptor) -> Printer:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            return _enum_printer(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda value: f'"{base64.b64encode(value).decode()}"'
        return _SCALARS[field.cpp_type]


def _is_regular(descriptor: Descriptor) -> bool:
    return (
        descriptor.full_name not in WELL_KNOWN
        and not descriptor.is_extendable
        and all(field.type != FieldDescriptor.TYPE_GROUP for field in descriptor.fields)
    )


def _printer(fields: list[tuple[str, str, bool, Printer]]) -> Printer:
    """Prints a message by its fields: each one's name, the name as its key, if it has presence, its value's printer."""

    def print_message(message: Any) -> str:
        shown = []
        for name, key, has_presence, print_value in fields:
            if not has_presence or message.HasField(name):
                shown.append(key + print_value(getattr(message, name)))
        return f"{{{','.join(shown)}}}"

    return print_message


def _list_printer(print_value: Printer) -> Printer:
    return lambda values: f"[{','.join([print_value(value) for value in values])}]"


def _map_printer(print_value: Printer) -> Printer:
    def print_map(entries: Any) -> str:
        shown = [f"{_quoted(_key(key))}:{print_value(entries[key])}" for key in entries]
        return f"{{{','.join(shown)}}}"

    return print_map


def _key(key: str | bool | int) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _enum_printer(enum: EnumDescriptor) -> Printer:
    """Prints a value by its name, one without a name as its number."""
    if enum.full_name == _NULL:
        return lambda _: "null"
    names = {value.number: f'"{value.name}"' for value in reversed(enum.values)}  # of aliases the first
    return lambda number: names.get(number) or str(number)


def _double(value: float) -> str:
    return float.__repr__(value) if math.isfinite(value) else _special(value)


def _float(value: float) -> str:
    """The shortest number that is this one in 32 bits, which it is no longer in a double's 64."""
    return float.__repr__(ToShortestFloat(value)) if math.isfinite(value) else _special(value)


def _special(value: float) -> str:
    """The name of a number that JSON has not."""
    if math.isnan(value):
        return '"NaN"'
    return '"Infinity"' if value > 0 else '"-Infinity"'


# JavaScript's numbers hold 53 bits, so that larger ones are strings.
_SCALARS: dict[int, Printer] = {
    FieldDescriptor.CPPTYPE_STRING: _quoted,
    FieldDescriptor.CPPTYPE_BOOL: lambda value: "true" if value else "false",
    FieldDescriptor.CPPTYPE_INT32: str,
    FieldDescriptor.CPPTYPE_UINT32: str,
    FieldDescriptor.CPPTYPE_INT64: lambda value: f'"{value}"',
    FieldDescriptor.CPPTYPE_UINT64: lambda value: f'"{value}"',
    FieldDescriptor.CPPTYPE_FLOAT: _float,
    FieldDescriptor.CPPTYPE_DOUBLE: _double,
}
