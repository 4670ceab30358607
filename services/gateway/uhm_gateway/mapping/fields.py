"""Fields by their path, and texts of paths and query strings put into them.

As grpc-gateway reads query parameters: well-known types in the form of their JSON string, wrappers as what they wrap,
repeated fields by repeating the parameter, and `map[key]=value` for maps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from uhm_gateway.errors import BadRequest
from uhm_gateway.mapping.jsontext import decode
from uhm_gateway.mapping.scalars import from_text, kind_of
from uhm_gateway.mapping.wellknown import (
    MAX_DEPTH,
    STRINGS,
    VALUES,
    WELL_KNOWN,
    WRAPPERS,
    set_from_json,
    set_from_string,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from uhm_gateway.mapping.scalars import Scalar

__all__ = [
    "WELL_KNOWN",
    "FieldPath",
    "check_oneof",
    "fields_by_any_name",
    "find_field",
    "is_map",
    "set_from_texts",
    "takes_text",
]

FieldPath = tuple[FieldDescriptor, ...]


@lru_cache(maxsize=4096)
def fields_by_any_name(message: Descriptor | None) -> Mapping[str, FieldDescriptor]:
    """A message's fields by their names in the .proto file and in JSON."""
    assert message is not None
    return {**{field.json_name: field for field in message.fields}, **message.fields_by_name}


def find_field(message: Descriptor, path: str) -> FieldPath | None:
    """The descriptors along a path such as `parent.display_name`, or None where there is no such field."""
    if path.count(".") >= MAX_DEPTH:
        return None
    found: list[FieldDescriptor] = []
    at: Descriptor | None = message
    for name in path.split("."):
        if at is None or (found and found[-1].is_repeated):
            return None
        field = fields_by_any_name(at).get(name)
        if field is None:
            return None
        found.append(field)
        at = field.message_type
    return tuple(found)


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map, which descriptors show as repeated messages of a generated type."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def takes_text(field: FieldDescriptor) -> bool:
    """Whether one text can be the field's value: scalars, enums, and the well-known types that are such in JSON."""
    if field.is_repeated:
        return False
    return field.message_type is None or field.message_type.full_name in STRINGS | WRAPPERS


def set_from_texts(message: Message, path: FieldPath, texts: Sequence[str], *, key: str | None = None) -> None:
    """Sets the field at the path: a repeated one to all texts, another to the only one, `key` of a map to the only one.

    Raises BadRequest, naming the field, where a text is not of the field's type or a field is given twice.
    """
    name = ".".join(field.name for field in path)
    for field in path[:-1]:
        check_oneof(message, field, name)
        message = getattr(message, field.name)
        message.SetInParent()
    field = path[-1]
    check_oneof(message, field, name)
    if (key is not None) != is_map(field):
        raise BadRequest(f"Field {name!r} cannot be set so.", hint=_how_to_set(field, name))
    if field.is_repeated and key is None:
        getattr(message, field.name).extend([_value(field, text, name) for text in texts])
        return
    if len(texts) != 1:
        raise BadRequest(f"Field {name!r} is given {len(texts)} times, but it is not repeated.")
    if key is not None:
        _set_entry(message, field, (key, texts[0]), name)
    elif field.message_type is None:
        setattr(message, field.name, _value(field, texts[0], name))
    else:
        getattr(message, field.name).CopyFrom(_value(field, texts[0], name))


def check_oneof(message: Message, field: FieldDescriptor, name: str) -> None:
    """Raises BadRequest where another field of the same oneof is set already."""
    oneof = field.containing_oneof
    chosen = message.WhichOneof(oneof.name) if oneof is not None else None
    if oneof is not None and chosen is not None and chosen != field.name:
        raise BadRequest(f"Field {name!r} excludes {chosen!r}, which is given too: {oneof.name!r} is one of them.")


def _how_to_set(field: FieldDescriptor, name: str) -> str:
    return f"It is a map: write {name}[KEY]=VALUE." if is_map(field) else "It is not a map."


def _set_entry(message: Message, field: FieldDescriptor, entry: tuple[str, str], name: str) -> None:
    kinds = fields_by_any_name(field.message_type)
    key = _value(kinds["key"], entry[0], f"{name}[{entry[0]}]")
    value = _value(kinds["value"], entry[1], f"{name}[{entry[0]}]")
    target = getattr(message, field.name)
    if kinds["value"].message_type is None:
        target[key] = value
    else:
        target[key].CopyFrom(value)


def _value(field: FieldDescriptor, text: str, name: str) -> Scalar | Message:
    try:
        return from_text(field, text) if field.message_type is None else _message(field.message_type, text, name)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"Field {name!r} takes {kind_of(field)}, not {text!r}.") from error


def _message(descriptor: Descriptor, text: str, name: str) -> Message:
    message = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name in WRAPPERS:
        setattr(message, "value", from_text(descriptor.fields_by_name["value"], text))  # noqa: B010
    elif descriptor.full_name in STRINGS:
        set_from_string(message, text)
    elif descriptor.full_name in VALUES:
        set_from_json(message, decode(text))
    else:
        raise BadRequest(
            f"Field {name!r} is a {descriptor.full_name} and cannot be set from text.", hint="Name a field of it."
        )
    return message
