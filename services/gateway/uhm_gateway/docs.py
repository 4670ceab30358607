"""The documentation at `GET /`, made from descriptors and comments: a page for browsers, text for terminals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from uhm_gateway.fields import fields_by_any_name, is_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import Descriptor

    from uhm_gateway.descriptors import Api, Method

__all__ = ["Documentation"]

# The walk-through shows this service's REST paths, so it is shown only where the service is.
WALKTHROUGH_SERVICE = "uhmalguhm.auth.v1.AuthService"
_CODE = re.compile(r"`([^`]+)`")
_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and isinstance(number, int)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    name: str
    comment: str
    bindings: tuple[tuple[str, str], ...]
    streams: str
    request: tuple[_Field, ...]
    response: tuple[_Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    full_name: str
    comment: str
    methods: tuple[_Method, ...]


class Documentation:
    """Both forms of the page, for the services in `served`; rendered once for each address they are asked at."""

    def __init__(self, api: Api, *, served: frozenset[str]) -> None:
        services = tuple(
            _Service(
                full_name=service.full_name,
                comment=service.comment,
                methods=tuple(_described(method, api.comments) for method in service.methods),
            )
            for service in api.services
            if service.full_name in served
        )
        environment = Environment(
            loader=PackageLoader("uhm_gateway"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters["prose"] = _prose
        context: dict[str, Any] = {"services": services, "walkthrough": WALKTHROUGH_SERVICE in served}
        page, text = environment.get_template("page.html"), environment.get_template("page.txt")
        self.html = lru_cache(maxsize=16)(lambda base: page.render(context, base=base))
        self.text = lru_cache(maxsize=16)(lambda base: text.render(context, base=base))


def _described(method: Method, comments: Mapping[str, str]) -> _Method:
    kinds = {
        (False, False): "",
        (False, True): "streams its answer, one JSON object per line",
        (True, False): "takes a stream",
        (True, True): "takes and answers streams",
    }
    return _Method(
        name=method.name,
        comment=method.comment,
        bindings=tuple((binding.http_method, binding.template.text) for binding in method.bindings),
        streams=kinds[method.client_streaming, method.server_streaming],
        request=_fields(method.input_type.DESCRIPTOR, comments),
        response=_fields(method.output_type.DESCRIPTOR, comments),
    )


def _fields(message: Descriptor | Any, comments: Mapping[str, str]) -> tuple[_Field, ...]:
    return tuple(
        _Field(name=field.name, type=_type_name(field), comment=comments.get(field.full_name, ""))
        for field in message.fields
    )


def _type_name(field: FieldDescriptor) -> str:
    if is_map(field):
        kinds = fields_by_any_name(field.message_type)
        return f"map of {_type_name(kinds['key'])} to {_type_name(kinds['value'])}"
    if field.message_type is not None:
        name = field.message_type.name
    elif field.enum_type is not None:
        name = " | ".join(value.name for value in field.enum_type.values)
    else:
        name = _SCALARS[field.type]
    return f"list of {name}" if field.is_repeated else name


def _prose(comment: str) -> Markup:
    """A comment as paragraphs, its `code` marked."""
    paragraphs = [" ".join(part.split()) for part in comment.split("\n\n") if part.strip()]
    marked = (_CODE.sub(r"<code>\1</code>", str(escape(paragraph))) for paragraph in paragraphs)
    return Markup("\n").join(Markup(f"<p>{paragraph}</p>") for paragraph in marked)  # noqa: S704 - escaped above
