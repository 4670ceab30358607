"""HTTP requests as messages: a binding's path variables, query parameters and body, as google/api/http.proto maps them.

Where a field is given more than once, the path goes over the body and the body over the query. With `body: "*"` there
are no query parameters at all: one is refused by name, since nothing would come of it. A PATCH with `body: "field"`
that gives no field mask gets one made from its body (see `patch`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl

from uhm_gateway.errors import BadRequest, ConfigurationError
from uhm_gateway.mapping.fields import FieldPath, fields_by_any_name, find_field, set_from_texts, takes_text
from uhm_gateway.mapping.jsons import JsonReader
from uhm_gateway.mapping.jsontext import loads
from uhm_gateway.mapping.patch import mask_field, named_paths
from uhm_gateway.mapping.percent import is_well_formed
from uhm_gateway.mapping.wellknown import WELL_KNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    from uhm_gateway.mapping.descriptors import Binding, Method

__all__ = ["HTTP_BODY", "Binder"]

HTTP_BODY = "google.api.HttpBody"
WHOLE_BODY = "*"
MAX_QUERY_PARAMETERS = 1000
_MAP_KEY = re.compile(r"(?P<path>[^\[\]]+)\[(?P<key>.*)\]", re.DOTALL)


class Binder:
    """Makes the messages of one binding. Raises ConfigurationError where its rule does not fit its method."""

    def __init__(self, method: Method, binding: Binding, *, pool: DescriptorPool) -> None:
        self._type = method.input_type
        self._reader = JsonReader(pool)
        self._descriptor = cast("Descriptor", method.input_type.DESCRIPTOR)
        self._path_fields = tuple(
            self._path_field(variable.field_path, binding) for variable in binding.template.variables
        )
        self._from_path = {_names(path) for path in self._path_fields}
        self._whole_body = binding.body == WHOLE_BODY
        self._body_field = None
        if binding.body and not self._whole_body:
            self._body_field = fields_by_any_name(self._descriptor).get(binding.body)
            if self._body_field is None:
                raise ConfigurationError(
                    f"{method.descriptor.full_name}: body {binding.body!r} is not a field of its request."
                )
        self.takes_body: Final = bool(binding.body)
        """Whether the rule maps the request's body to anything."""
        self.raw_body_field: Final = self._raw_body_field()
        """The field that takes the body as it is, of type google.api.HttpBody; empty for the message itself."""
        self._mask = self._mask_field() if binding.http_method == "PATCH" else None

    def bind(self, *, captured: Sequence[str], query: str, body: bytes = b"") -> Message:
        """The message for a request; `captured` are the texts of the template's variables.

        An empty body is an absent one. Where the rule has no body, what is given as one is the whole message: frames of
        a WebSocket are. Raises BadRequest, naming what does not fit.
        """
        message: Any = self._type()
        if query:
            self._bind_query(message, query)
        if body and self.raw_body_field is None:
            self._bind_body(message, loads(body))
        for path, text in zip(self._path_fields, captured, strict=True):
            _clear_oneof(message, path)
            set_from_texts(message, path, [text])
        if self.raw_body_field is None and not message.IsInitialized():
            missing = ", ".join(message.FindInitializationErrors())
            raise BadRequest(f"The request lacks what a {self._descriptor.full_name} requires: {missing}.")
        return cast("Message", message)

    def bind_raw(self, message: Message, *, content_type: str, data: bytes) -> Message:
        """Puts a piece of a raw body into the message's google.api.HttpBody, and answers the message."""
        body: Any = getattr(message, self.raw_body_field) if self.raw_body_field else message
        body.content_type = content_type
        body.data = data
        return message

    def _bind_body(self, message: Message, value: Any) -> None:
        field = self._body_field
        if field is None:
            self._reader.merge(value, message)
            return
        message.ClearField(field.name)
        self._reader.merge_field(value, message, field, at=field.name)
        if self._mask is not None and field.message_type is not None:
            mask: Any = getattr(message, self._mask.name)
            if not mask.paths and (paths := named_paths(value, field.message_type)):
                mask.paths.extend(paths)

    def _bind_query(self, message: Message, query: str) -> None:
        if not is_well_formed(query):
            raise BadRequest("The query has a '%' without two hexadecimal digits after it.")
        try:
            parameters = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_PARAMETERS)
        except UnicodeDecodeError as error:
            raise BadRequest("The query is not UTF-8 after percent-decoding.") from error
        except ValueError as error:
            raise BadRequest(f"The query has more than {MAX_QUERY_PARAMETERS} parameters.") from error
        texts: dict[str, list[str]] = {}
        for name, text in parameters:
            texts.setdefault(name, []).append(text)
        for name, given in texts.items():
            path, key = self._parameter(name)
            if _names(path) not in self._from_path:
                set_from_texts(message, path, given, key=key)

    def _parameter(self, name: str) -> tuple[FieldPath, str | None]:
        path, key = find_field(self._descriptor, name), None
        if path is None and (entry := _MAP_KEY.fullmatch(name)):
            path, key = find_field(self._descriptor, entry["path"]), entry["key"]
        if path is None:
            raise BadRequest(f"Unknown query parameter {name!r}: {self._descriptor.full_name} has no such field.")
        if self._whole_body and _names(path) not in self._from_path:
            raise BadRequest(
                f"Query parameter {name!r} is not taken here.", hint="Send it as a field of the JSON body."
            )
        return path, key

    def _path_field(self, name: str, binding: Binding) -> FieldPath:
        path = find_field(self._descriptor, name)
        if path is None:
            raise ConfigurationError(f"{binding.template.text}: {self._descriptor.full_name} has no field {name!r}.")
        if not takes_text(path[-1]):
            kind = "repeated" if path[-1].is_repeated else "a message"
            raise ConfigurationError(f"{binding.template.text}: {name!r} is {kind}, which a path cannot hold.")
        return path

    def _raw_body_field(self) -> str | None:
        if self._whole_body:
            return "" if self._descriptor.full_name == HTTP_BODY else None
        field = self._body_field
        if field is None or field.is_repeated or field.message_type is None:
            return None
        return field.name if field.message_type.full_name == HTTP_BODY else None

    def _mask_field(self) -> FieldDescriptor | None:
        """The mask to fill from the body, where the body is a message with fields of its own and not the mask."""
        body = self._body_field
        if body is None or body.message_type is None or body.is_repeated:
            return None
        if body.message_type.full_name in WELL_KNOWN or body.message_type.full_name == HTTP_BODY:
            return None
        return mask_field(self._descriptor)


def _names(path: FieldPath) -> tuple[str, ...]:
    return tuple(field.name for field in path)


def _clear_oneof(message: Message, path: FieldPath) -> None:
    """Drops what the body or the query chose of a oneof that the path chooses from."""
    for field in path:
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name) != field.name:
            message.ClearField(field.containing_oneof.name)
        if field is not path[-1]:
            message = getattr(message, field.name)
