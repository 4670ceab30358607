"""The documentation at `GET /`, made from descriptors and comments: a page for browsers, text for terminals."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from uhm_gateway.docs.openapi import CONVENTIONS, titles_of
from uhm_gateway.docs.operations import Operation, operation_of
from uhm_gateway.docs.permissions import permissions_of
from uhm_gateway.docs.responses import errors_of, first_sentence
from uhm_gateway.docs.schemas import oneof_of
from uhm_gateway.docs.walkthrough import WALKTHROUGH_SERVICES, walkthrough
from uhm_gateway.mapping.bind import HTTP_BODY
from uhm_gateway.mapping.fields import fields_by_any_name, is_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from uhm_gateway.mapping.descriptors import Api, Method
    from uhmalguhm.access.v1.access_pb2 import Access

__all__ = ["Documentation"]

MAX_DEPTH = 4
"""Of messages in messages that are shown inside each other."""
_CODE = re.compile(r"`([^`]+)`")
_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and isinstance(number, int)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """A row of a table, and the fields inside it; `place` is path, query or header for a parameter."""

    name: str
    type: str
    comment: str
    place: str = ""
    fields: tuple[_Field, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    """A method; how it is tried out is told for its first binding.

    `bearer` are the kinds of token to send, and `body` is what to begin with: JSON, or `raw` for any bytes.
    """

    name: str
    anchor: str
    grpc: str
    summary: str
    comment: str
    asks: str
    bearer: str
    streams: str
    deprecated: bool
    bindings: tuple[tuple[str, str], ...]
    parameters: tuple[_Field, ...]
    request: tuple[_Field, ...]
    response: tuple[_Field, ...]
    errors: tuple[tuple[int, str], ...]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    title: str
    full_name: str
    comment: str
    methods: tuple[_Method, ...]


class Documentation:
    """Both forms of the page, for the services in `served`, in that order."""

    def __init__(self, api: Api, *, served: Sequence[str]) -> None:
        self._api = api
        by_name = {service.full_name: service for service in api.services}
        services = [by_name[name] for name in served]
        titles = titles_of(services)
        shown = tuple(
            _Service(
                title=titles[service.full_name],
                full_name=service.full_name,
                comment=service.comment,
                methods=tuple(self._method(method, titles[service.full_name]) for method in service.methods),
            )
            for service in services
        )
        environment = Environment(
            loader=PackageLoader("uhm_gateway.docs"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"prose": _prose, "breakable": _breakable}
        self._has_walkthrough = set(served) >= WALKTHROUGH_SERVICES
        self._context: dict[str, Any] = {"services": shown, "conventions": CONVENTIONS}
        self._page, self._text = environment.get_template("page.html"), environment.get_template("page.txt")

    def html(self, base: str) -> str:
        """The page, whose commands go to the address `base`."""
        return self._page.render(self._context, base=base, steps=self._steps(base))

    def text(self, base: str) -> str:
        """The same for a terminal."""
        return self._text.render(self._context, base=base, steps=self._steps(base))

    def _steps(self, base: str) -> tuple[Any, ...]:
        return walkthrough(base) if self._has_walkthrough else ()

    def _method(self, method: Method, title: str) -> _Method:
        access = permissions_of(method, pool=self._api.pool)
        summary, rest = first_sentence(method.comment)
        operations = [operation_of(method, binding) for binding in method.bindings]
        first = operations[0] if operations else None
        return _Method(
            name=method.name,
            anchor=f"{title}.{method.name}",
            grpc=method.path.removeprefix("/"),
            summary=summary,
            comment=rest,
            asks=_asks(access),
            bearer=_bearer(access),
            streams=_streams(method),
            deprecated=method.descriptor.GetOptions().deprecated,
            bindings=tuple((operation.http_method, operation.path) for operation in operations),
            parameters=self._parameters(first, has_key=access is not None and access.idempotency_key),
            request=self._fields(_asked(first, method)),
            response=self._fields(_answered(first, method)),
            errors=tuple(errors_of(first, access).items()) if first and access is not None else (),
            body=_body(first),
        )

    def _parameters(self, operation: Operation | None, *, has_key: bool) -> tuple[_Field, ...]:
        if operation is None:
            return ()
        rows = [
            _Field(
                name=each.name,
                type=_type_name(each.field) if each.field is not None else "string",
                comment=self._api.comments.get(each.field.full_name, "") if each.field is not None else "",
                place="path",
            )
            for each in operation.in_path
        ]
        rows += [
            _Field(name=each.name, type=_type_name(each.field), comment=self._comment(each.field), place="query")
            for each in operation.in_query
        ]
        if has_key:
            told = "With the same key the same answer, for 24 hours."
            rows.append(_Field(name="Idempotency-Key", type="string", comment=told, place="header"))
        return tuple(rows)

    def _fields(self, fields: Iterable[FieldDescriptor], above: tuple[str, ...] = ()) -> tuple[_Field, ...]:
        return tuple(
            _Field(
                name=field.name,
                type=_type_name(field),
                comment=self._comment(field),
                fields=self._inside(field, above),
            )
            for field in fields
        )

    def _inside(self, field: FieldDescriptor, above: tuple[str, ...]) -> tuple[_Field, ...]:
        kind = fields_by_any_name(field.message_type)["value"].message_type if is_map(field) else field.message_type
        if kind is None or kind.full_name in above or len(above) >= MAX_DEPTH or kind.full_name.startswith("google."):
            return ()
        return self._fields(kind.fields, (*above, kind.full_name))

    def _comment(self, field: FieldDescriptor) -> str:
        others = " and ".join(f"`{name}`" for name in oneof_of(field) if name != field.name)
        excludes = f"Excludes {others}." if others else ""
        return "\n\n".join(part for part in (self._api.comments.get(field.full_name, ""), excludes) if part)


def _asks(access: Access | None) -> str:
    """What a caller needs, in the few words of a badge."""
    if access is None:
        return ""
    if access.public:
        return f"{' or '.join(access.bearer)} token" if access.bearer else "no token"
    return " · ".join(part for part in ("admin" if access.admin else "", access.scope or "login only") if part)


def _bearer(access: Access | None) -> str:
    """Without the option nobody knows, and a token that is not asked for does no harm."""
    return "access" if access is None or not access.public else " ".join(access.bearer)


def _asked(operation: Operation | None, method: Method) -> Iterable[FieldDescriptor]:
    """What the body takes; where there is no binding, what the message holds."""
    if operation is None:
        fields: Iterable[FieldDescriptor] = method.descriptor.input_type.fields
        return fields
    return operation.body.fields if operation.body is not None else ()


def _streams(method: Method) -> str:
    if method.client_streaming and method.server_streaming:
        return "streams both ways"
    if method.client_streaming:
        return "takes a stream"
    return "streams" if method.server_streaming else ""


def _answered(operation: Operation | None, method: Method) -> Iterable[FieldDescriptor]:
    field = operation.answer_field if operation is not None else None
    if operation is not None and operation.is_raw:
        return ()
    if field is None:
        fields: Iterable[FieldDescriptor] = method.descriptor.output_type.fields
        return fields
    return field.message_type.fields if field.message_type is not None and not is_map(field) else (field,)


def _body(operation: Operation | None) -> str:
    """What to begin with as the body: the fields that are simple and exclude no others, empty."""
    if operation is None or operation.body is None:
        return ""
    if operation.body.is_raw:
        return "raw"
    field = operation.body.field
    if field is not None and not operation.body.fields:
        return "[]" if field.is_repeated else json.dumps(_empty(field))
    plain = [each for each in operation.body.fields if not (each.is_repeated or each.message_type or oneof_of(each))]
    return json.dumps({each.name: _empty(each) for each in plain}, indent=2)


def _empty(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[0].name
    return "" if field.type == FieldDescriptor.TYPE_BYTES or field.message_type is not None else field.default_value


def _type_name(field: FieldDescriptor) -> str:
    if is_map(field):
        kinds = fields_by_any_name(field.message_type)
        return f"map of {_type_name(kinds['key'])} to {_type_name(kinds['value'])}"
    if field.message_type is not None:
        name = "bytes" if field.message_type.full_name == HTTP_BODY else field.message_type.name
    elif field.enum_type is not None:
        name = " | ".join(value.name for value in field.enum_type.values)
    else:
        name = _SCALARS[field.type]
    return f"list of {name}" if field.is_repeated else name


def _breakable(path: str) -> Markup:
    """A path that may be broken before its segments and its verb, where it is too long for a line."""
    return Markup("<wbr>").join(re.split(r"(?=[/:])", path))


def _prose(comment: str) -> Markup:
    """A comment as paragraphs, its `code` marked."""
    paragraphs = [" ".join(part.split()) for part in comment.split("\n\n") if part.strip()]
    marked = (_CODE.sub(r"<code>\1</code>", str(escape(paragraph))) for paragraph in paragraphs)
    return Markup("\n").join(Markup(f"<p>{paragraph}</p>") for paragraph in marked)  # noqa: S704 - escaped above
