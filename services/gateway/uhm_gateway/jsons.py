"""JSON texts as messages, by the JSON mapping of Protocol Buffers (https://protobuf.dev/programming-guides/json).

The same mapping as google.protobuf.json_format's, which does the well-known types here; the rest is written anew
because its errors do not say which field they are about where the field is in a oneof or is `optional`. Field names
are taken as in the .proto file and in camelCase. Stricter than Python's json module, as the mapping asks: no NaN or
Infinity outside strings, no key twice in an object.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from uhm_gateway.errors import BadRequest
from uhm_gateway.fields import WELL_KNOWN, check_oneof, fields_by_any_name, is_map
from uhm_gateway.scalars import FLOAT_MAX, INTEGER_RANGES, Scalar, from_text, kind_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["loads", "merge", "merge_field"]

MAX_DEPTH = 100
SHOWN_CHARACTERS = 80
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def loads(text: bytes) -> Any:
    """Decodes JSON. Raises BadRequest with line and column."""
    try:
        return _DECODER.decode(text.decode())
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos})."
        ) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not JSON: it is not UTF-8 at byte {error.start}.") from error
    except RecursionError as error:
        raise BadRequest("The body is nested too deeply.") from error
    except ValueError as error:
        raise BadRequest(f"The body is not JSON that this takes: {error}.") from error


def merge(value: Any, message: Message, *, pool: DescriptorPool, at: str = "") -> None:
    """Merges decoded JSON into a message; `at` is the message's own place in the body.

    Raises BadRequest, naming the field that does not fit.
    """
    if at.count(".") >= MAX_DEPTH:
        raise BadRequest("The body is nested too deeply.")
    if message.DESCRIPTOR.full_name in WELL_KNOWN:
        _merge_well_known(value, message, pool=pool, at=at)
        return
    if not isinstance(value, dict):
        raise BadRequest(f"{_place(at)} takes an object, not {_shown(value)}.")
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
        merge_field(item, message, field, pool=pool, at=place)


def merge_field(value: Any, message: Message, field: FieldDescriptor, *, pool: DescriptorPool, at: str) -> None:
    """Sets one field of a message to decoded JSON; null leaves it as it is. Raises as `merge` does."""
    if value is None and not _takes_null(field):
        return
    check_oneof(message, field, at)
    if is_map(field):
        _merge_map(value, message, field, pool=pool, at=at)
    elif field.is_repeated:
        _merge_repeated(value, message, field, pool=pool, at=at)
    elif field.message_type is not None:
        part = getattr(message, field.name)
        part.SetInParent()
        merge(value, part, pool=pool, at=at)
    else:
        setattr(message, field.name, _scalar(value, field, at=at))


def _merge_repeated(value: Any, message: Message, field: FieldDescriptor, *, pool: DescriptorPool, at: str) -> None:
    if not isinstance(value, list):
        raise BadRequest(f"{_place(at)} takes an array, not {_shown(value)}.")
    items = getattr(message, field.name)
    if field.message_type is None:
        items.extend([_scalar(item, field, at=f"{at}[{index}]") for index, item in enumerate(value)])
        return
    for index, item in enumerate(value):
        merge(item, items.add(), pool=pool, at=f"{at}[{index}]")


def _merge_map(value: Any, message: Message, field: FieldDescriptor, *, pool: DescriptorPool, at: str) -> None:
    if not isinstance(value, dict):
        raise BadRequest(f"{_place(at)} takes an object, not {_shown(value)}.")
    kinds = fields_by_any_name(field.message_type)
    items = getattr(message, field.name)
    for name, item in value.items():
        place = f"{at}[{json.dumps(name)}]"
        try:
            key = from_text(kinds["key"], name)
        except ValueError as error:
            raise BadRequest(f"Field {at!r} takes {kind_of(kinds['key'])} as key, not {_shown(name)}.") from error
        if kinds["value"].message_type is None:
            items[key] = _scalar(item, kinds["value"], at=place)
        else:
            merge(item, items[key], pool=pool, at=place)


def _merge_well_known(value: Any, message: Message, *, pool: DescriptorPool, at: str) -> None:
    try:
        json_format.ParseDict(value, message, descriptor_pool=pool)
    except (
        json_format.ParseError,
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # json_format lets some others through, for values that no field takes; json_format.Parse wraps them as well.
        raise BadRequest(
            f"{_place(at)} takes a {message.DESCRIPTOR.full_name}, not {_shown(value)}: {error}"
        ) from error


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
                return from_text(field, str(_whole(value)))
            if kind in _FLOATS:
                return _finite(value, field)
        if value is None and _takes_null(field):
            return 0
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{_place(at)} takes {kind_of(field)}, not {_shown(value)}.") from error
    raise BadRequest(f"{_place(at)} takes {kind_of(field)}, not {_shown(value)}.")


def _whole(value: float) -> int:
    """A number without a fraction as an integer: JSON does not tell 1 from 1.0."""
    if value != int(value):
        raise ValueError(value)
    return int(value)


def _finite(value: float, field: FieldDescriptor) -> float:
    number = float(value)
    if math.isinf(number) or (field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and abs(number) > FLOAT_MAX):
        raise ValueError(value)
    return number


def _takes_null(field: FieldDescriptor) -> bool:
    """Whether null is a value of the field's type, not the absence of one."""
    if field.is_repeated:
        return False
    if field.message_type is not None:
        return field.message_type.full_name == "google.protobuf.Value"
    return field.enum_type is not None and field.enum_type.full_name == "google.protobuf.NullValue"


def _place(at: str) -> str:
    return f"Field {at!r}" if at else "The body"


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=True)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}…"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"key {twice!r} is there twice"
        raise ValueError(message)
    return found


def _no_constant(name: str) -> Any:
    message = f'{name} is only known as a string, "{name}"'
    raise ValueError(message)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)
