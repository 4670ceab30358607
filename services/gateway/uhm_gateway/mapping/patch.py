"""The field mask of a PATCH that does not give one: the fields that its body names, as grpc-gateway fills it.

So `PATCH /v1/books/1 {"title": "x", "author": {"name": "y"}}` changes `title` and `author.name` and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm_gateway.mapping.fields import fields_by_any_name
from uhm_gateway.mapping.wellknown import WELL_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

__all__ = ["mask_field", "named_paths"]

UPDATE_MASK = "update_mask"


def mask_field(request: Descriptor) -> FieldDescriptor | None:
    """The field of a request that is its mask: the only one of that type, or the one that is called `update_mask`."""
    masks = [
        field
        for field in request.fields
        if field.message_type is not None
        and field.message_type.full_name == "google.protobuf.FieldMask"
        and not field.is_repeated
    ]
    if len(masks) == 1:
        return masks[0]
    return next((field for field in masks if field.name == UPDATE_MASK), None)


def named_paths(value: Any, message: Descriptor) -> list[str]:
    """The paths, in their order, of the fields that a JSON object names; it must have been merged as such a message.

    A path goes into messages; it ends at scalars, repeated fields, maps, well-known types, null and empty objects.
    """
    return sorted(_paths(value, message, "")) if value else []


def _paths(value: dict[str, Any], message: Descriptor, prefix: str) -> Iterator[str]:
    known = fields_by_any_name(message)
    for name, item in value.items():
        field = known[name]
        path = prefix + field.name
        inner = None if field.is_repeated else field.message_type
        if inner is None or inner.full_name in WELL_KNOWN or not item:
            yield path
        else:
            yield from _paths(item, inner, f"{path}.")
