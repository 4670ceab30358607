"""HTTP requests as messages: a binding's path variables, query parameters and body, as google/api/http.proto maps them.

Where a field is given more than once, the path goes over the body and the body over the query. With `body: "*"` there
are no query parameters at all: one is refused by name, since nothing would come of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from uhm_gateway.errors import BadRequest, ConfigurationError
from uhm_gateway.fields import FieldPath, fields_by_any_name, find_field, is_map, set_from_texts
from uhm_gateway.jsons import loads, merge, merge_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    from uhm_gateway.descriptors import Binding, Method

__all__ = ["HTTP_BODY", "Binder"]

HTTP_BODY = "google.api.HttpBody"
WHOLE_BODY = "*"
MAX_QUERY_PARAMETERS = 1000
_MAP_KEY = re.compile(r"(?P<path>[^\[\]]+)\[(?P<key>.*)\]", re.DOTALL)


class Binder:
    """Makes the messages of one binding. Raises ConfigurationError where its rule does not fit its method."""

    def __init__(self, method: Method, binding: Binding, *, pool: DescriptorPool) -> None:
        self._type = method.input_type
        self._pool = pool
        self._descriptor = cast("Descriptor", method.input_type.DESCRIPTOR)
        self._path_fields = tuple(
            self._path_field(variable.field_path, binding) for variable in binding.template.variables
        )
        self._from_path = {tuple(field.name for field in path) for path in self._path_fields}
        self._whole_body = binding.body == WHOLE_BODY
        self._body_field = None
        if binding.body and not self._whole_body:
            self._body_field = fields_by_any_name(self._descriptor).get(binding.body)
            if self._body_field is None:
                raise ConfigurationError(
                    f"{method.descriptor.full_name}: body {binding.body!r} is not a field of its request."
                )

    @property
    def takes_body(self) -> bool:
        """Whether the rule maps the request's body to anything."""
        return self._whole_body or self._body_field is not None

    @property
    def raw_body_field(self) -> str | None:
        """The field that takes the body as it is, of type google.api.HttpBody; empty for the message itself."""
        if self._whole_body:
            return "" if self._descriptor.full_name == HTTP_BODY else None
        field = self._body_field
        if (
            field is None
            or field.message_type is None
            or field.message_type.full_name != HTTP_BODY
            or field.is_repeated
        ):
            return None
        return field.name

    def bind(self, *, captured: Sequence[str], query: str, body: bytes = b"") -> Message:
        """The message for a request; `captured` are the texts of the template's variables.

        An empty body is an absent one. Raises BadRequest, naming what does not fit.
        """
        message = self._type()
        if query:
            self._bind_query(message, query)
        if body and self.raw_body_field is None:
            self._bind_body(message, body)
        for path, text in zip(self._path_fields, captured, strict=True):
            _clear_oneof(message, path)
            set_from_texts(message, path, [text])
        return message

    def bind_raw(self, message: Message, *, content_type: str, data: bytes) -> Message:
        """Puts a piece of a raw body into the message's google.api.HttpBody, and answers the message."""
        body: Any = getattr(message, self.raw_body_field) if self.raw_body_field else message
        body.content_type = content_type
        body.data = data
        return message

    def _bind_body(self, message: Message, body: bytes) -> None:
        value = loads(body)
        if self._body_field is None:
            merge(value, message, pool=self._pool)
            return
        message.ClearField(self._body_field.name)
        merge_field(value, message, self._body_field, pool=self._pool, at=self._body_field.name)

    def _bind_query(self, message: Message, query: str) -> None:
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
            if tuple(field.name for field in path) not in self._from_path:
                set_from_texts(message, path, given, key=key)

    def _parameter(self, name: str) -> tuple[FieldPath, str | None]:
        path, key = find_field(self._descriptor, name), None
        if path is None and (entry := _MAP_KEY.fullmatch(name)):
            path, key = find_field(self._descriptor, entry["path"]), entry["key"]
        if path is None:
            raise BadRequest(f"Unknown query parameter {name!r}: {self._descriptor.full_name} has no such field.")
        if self._whole_body and tuple(field.name for field in path) not in self._from_path:
            raise BadRequest(
                f"Query parameter {name!r} is not taken here.", hint="Send it as a field of the JSON body."
            )
        return path, key

    def _path_field(self, name: str, binding: Binding) -> FieldPath:
        path = find_field(self._descriptor, name)
        if path is None:
            raise ConfigurationError(f"{binding.template.text}: {self._descriptor.full_name} has no field {name!r}.")
        if path[-1].is_repeated or is_map(path[-1]):
            raise ConfigurationError(f"{binding.template.text}: {name!r} is repeated, which a path cannot hold.")
        return path


def _clear_oneof(message: Message, path: FieldPath) -> None:
    """Drops what the body or the query chose of a oneof that the path chooses from."""
    for field in path:
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name) != field.name:
            message.ClearField(field.containing_oneof.name)
        if field is not path[-1]:
            message = getattr(message, field.name)
