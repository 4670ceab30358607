"""The other direction: a message as the request that a client makes of it, as google/api/http.proto tells clients.

JSON and the texts of well-known types are google.protobuf.json_format's, so that the two sides share nothing.
"""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from google.protobuf import json_format

from tests.conformance.api import mapping
from uhm_gateway.mapping.fields import WELL_KNOWN, find_field, is_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.api import Endpoint

__all__ = ["request_of"]

# What RFC 3986 calls unreserved, which urllib never encodes, is all that stays in a variable of one segment.
SINGLE, MULTI = "", "/"


def request_of(endpoint: Endpoint, message: Any, *, proto_names: bool) -> tuple[str, str, bytes]:
    """HTTP method, target and body; field names as in the .proto file or as in JSON."""
    binding = endpoint.binding
    rest = type(message)()
    rest.CopyFrom(message)
    path = _path(endpoint, rest)
    body = b""
    if binding.body == "*":
        body, rest = _json(rest, proto_names=proto_names), type(message)()
    elif binding.body:
        body = _json(getattr(rest, binding.body), proto_names=proto_names)
        rest.ClearField(binding.body)
    query = urlencode(list(_parameters(rest, "", proto_names=proto_names)))
    return binding.http_method, f"{path}?{query}" if query else path, body


def _json(message: Any, *, proto_names: bool) -> bytes:
    shown = json_format.MessageToDict(
        message, preserving_proto_field_name=proto_names, descriptor_pool=mapping().api.pool
    )
    return json.dumps(shown).encode()


def _path(endpoint: Endpoint, rest: Any) -> str:
    """The path of a template whose variables are the message's fields, which are taken out of it."""
    segments = [each if isinstance(each, str) else "*" for each in endpoint.binding.template.segments]
    for variable in reversed(endpoint.binding.template.variables):
        fields = find_field(rest.DESCRIPTOR, variable.field_path)
        assert fields is not None
        holder = rest
        for field in fields[:-1]:
            holder = getattr(holder, field.name)
        text = _text(fields[-1], getattr(holder, fields[-1].name))
        segments[variable.start : variable.end] = [quote(text, safe=SINGLE if variable.is_single else MULTI)]
        holder.ClearField(fields[-1].name)
    verb = endpoint.binding.template.verb
    return "/" + "/".join(segments) + (f":{verb}" if verb else "")


def _parameters(message: Any, prefix: str, *, proto_names: bool) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        name = prefix + (field.name if proto_names else field.json_name)
        if is_map(field):
            kinds = field.message_type.fields_by_name
            for key in value:
                yield f"{name}[{_text(kinds['key'], key)}]", _text(kinds["value"], value[key])
        elif field.is_repeated:
            yield from ((name, _text(field, item)) for item in value)
        elif field.message_type is None or field.message_type.full_name in WELL_KNOWN:
            yield name, _text(field, value)
        else:
            yield from _parameters(value, f"{name}.", proto_names=proto_names)


def _text(field: Any, value: Any) -> str:
    """A value as the text of a path or a query."""
    if field.message_type is not None:
        return _text_of_message(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return str(value) if named is None else named.name
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return base64.urlsafe_b64encode(value).decode().rstrip("=")
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case _:
            return str(value)


def _text_of_message(value: Any) -> str:
    shown = json_format.MessageToDict(value)
    name = value.DESCRIPTOR.full_name
    if name in {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}:
        return json.dumps(shown)
    return ("true" if shown else "false") if isinstance(shown, bool) else str(shown)
