"""Messages as HTTP bodies: JSON with the names of the .proto file, or the bytes of a google.api.HttpBody.

Fields without presence are always printed; those with presence only where they are set. `response_body` answers one
field instead of the message: a message field that is not set as if it were empty, another as null.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from uhm_gateway.errors import ConfigurationError
from uhm_gateway.mapping import printer
from uhm_gateway.mapping.bind import HTTP_BODY
from uhm_gateway.mapping.fields import WELL_KNOWN, fields_by_any_name
from uhm_gateway.mapping.printer import Printers

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    from uhm_gateway.mapping.descriptors import Binding, Method

__all__ = ["JSON", "NDJSON", "Rendered", "Renderer", "to_json"]

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
BINARY = b"application/octet-stream"


class Rendered(NamedTuple):
    """A body and its content type."""

    content_type: bytes
    body: bytes


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return printer.to_json(value).encode()


class Renderer:
    """Makes the bodies of one binding. Raises ConfigurationError where its rule does not fit its method."""

    def __init__(self, method: Method, binding: Binding, *, pool: DescriptorPool) -> None:
        self._printers = _printers(pool)
        self._field: FieldDescriptor | None = None
        shown = method.output_type.DESCRIPTOR.full_name
        if binding.response_body:
            self._field = fields_by_any_name(method.output_type.DESCRIPTOR).get(binding.response_body)
            if self._field is None:
                problem = f"response_body {binding.response_body!r} is not a field of its response."
                raise ConfigurationError(f"{method.descriptor.full_name}: {problem}")
            one_message = self._field.message_type is not None and not self._field.is_repeated
            shown = self._field.message_type.full_name if one_message and self._field.message_type else ""
        self.is_raw = shown == HTTP_BODY

    def render(self, message: Message) -> Rendered:
        """The body that is a message: of a unary call's answer, or inside a stream's framing."""
        if not self.is_raw:
            return Rendered(JSON, self._text(message).encode())
        body: Any = self._part(message)
        content_type = body.content_type.encode("ascii", errors="ignore")
        return Rendered(content_type or BINARY, body.data)

    def _part(self, message: Message) -> Message:
        part: Message = getattr(message, self._field.name) if self._field is not None else message
        return part

    def _text(self, message: Any) -> str:
        field = self._field
        if field is None:
            return self._printers.of(message.DESCRIPTOR)(message)
        is_optional = field.message_type is None or field.message_type.full_name in WELL_KNOWN
        if field.has_presence and is_optional and not message.HasField(field.name):
            return "null"
        return self._printers.of_field(field)(getattr(message, field.name))


@lru_cache(maxsize=16)
def _printers(pool: DescriptorPool) -> Printers:
    """One for all bindings of an API."""
    return Printers(pool)
