"""Bindings as OpenAPI sees them: a path, parameters and a body.

OpenAPI's paths have variables of one segment only. A variable of several, as in `{name=shelves/*/books/*}`, becomes its
literals and one parameter for each of its wildcards: `/shelves/{name_1}/books/{name_2}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from uhm_gateway.mapping.bind import HTTP_BODY, WHOLE_BODY
from uhm_gateway.mapping.fields import WELL_KNOWN, FieldPath, fields_by_any_name, find_field, is_map
from uhm_gateway.mapping.template import Wildcard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from uhm_gateway.mapping.descriptors import Binding, Method
    from uhm_gateway.mapping.template import Template, Variable

__all__ = ["Body", "Operation", "PathParameter", "QueryParameter", "operation_of"]

MAX_DEPTH = 5
"""Of the names of query parameters, `a.b.c.d.e`: messages may hold each other in very many ways."""
_PCHAR = "-._~!$&'()+,;=:@"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathParameter:
    """A variable of the path, or a part of one.

    `field` is None where the wildcard is bound to no field, `part_of` the variable's pattern where it is only a part.
    """

    name: str
    field: FieldDescriptor | None
    part_of: str = ""
    rest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameter:
    """A field that the query may set, by its path."""

    name: str
    field: FieldDescriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What the body is: the bytes of a google.api.HttpBody, one field, or an object with these fields of the message.

    `is_whole` says that the object has all the message's fields.
    """

    message: Descriptor
    fields: tuple[FieldDescriptor, ...] = ()
    field: FieldDescriptor | None = None
    is_raw: bool = False
    is_whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One binding of one method; `http_method` as in the rule, so any custom one, too."""

    method: Method
    binding: Binding
    http_method: str
    path: str
    in_path: tuple[PathParameter, ...]
    in_query: tuple[QueryParameter, ...]
    body: Body | None
    answer: Descriptor
    answer_field: FieldDescriptor | None

    @property
    def is_raw(self) -> bool:
        """Whether it answers the bytes of a google.api.HttpBody."""
        field = self.answer_field
        if field is None:
            return self.answer.full_name == HTTP_BODY
        return field.message_type is not None and field.message_type.full_name == HTTP_BODY and not field.is_repeated


def operation_of(method: Method, binding: Binding) -> Operation:
    """The binding as OpenAPI sees it."""
    request = cast("Descriptor", method.input_type.DESCRIPTOR)
    answer = cast("Descriptor", method.output_type.DESCRIPTOR)
    path, in_path = _path(request, binding.template)
    bound = [variable.field_path for variable in binding.template.variables]
    taken = {tuple(field.name for field in find_field(request, name) or ()) for name in bound}
    body = _body(request, binding, taken)
    in_query: tuple[QueryParameter, ...] = ()
    if binding.body != WHOLE_BODY:
        if body is not None and body.field is not None:
            taken.add((body.field.name,))
        in_query = tuple(_query(request, (), taken))
    return Operation(
        method=method,
        binding=binding,
        http_method=binding.http_method,
        path=path,
        in_path=in_path,
        in_query=in_query,
        body=body,
        answer=answer,
        answer_field=fields_by_any_name(answer)[binding.response_body] if binding.response_body else None,
    )


def _body(request: Descriptor, binding: Binding, taken: set[tuple[str, ...]]) -> Body | None:
    if not binding.body:
        return None
    if binding.body == WHOLE_BODY:
        if request.full_name == HTTP_BODY:
            return Body(message=request, is_raw=True)
        fields = tuple(field for field in request.fields if (field.name,) not in taken)
        return Body(message=request, fields=fields, is_whole=len(fields) == len(request.fields))
    field = fields_by_any_name(request)[binding.body]
    kind = field.message_type
    if kind is None or field.is_repeated or kind.full_name in WELL_KNOWN:
        return Body(message=request, field=field)
    is_raw = kind.full_name == HTTP_BODY
    return Body(message=request, field=field, fields=() if is_raw else tuple(kind.fields), is_raw=is_raw)


def _path(request: Descriptor, template: Template) -> tuple[str, tuple[PathParameter, ...]]:
    texts: list[str] = []
    parameters: list[PathParameter] = []
    for at, segment in enumerate(template.segments):
        if isinstance(segment, str):
            texts.append(quote(segment, safe=_PCHAR))
            continue
        parameter = _parameter(request, template, at)
        parameters.append(parameter)
        texts.append(f"{{{parameter.name}}}")
    verb = f":{quote(template.verb, safe=_PCHAR)}" if template.verb else ""
    return f"/{'/'.join(texts)}{verb}", tuple(parameters)


def _parameter(request: Descriptor, template: Template, at: int) -> PathParameter:
    is_rest = template.segments[at] is Wildcard.REST
    variable = next((each for each in template.variables if _covers(each, at)), None)
    if variable is None:
        return PathParameter(name=f"segment_{at + 1}", field=None, rest=is_rest)
    found: FieldPath = find_field(request, variable.field_path) or ()
    if variable.is_single:
        return PathParameter(name=variable.field_path, field=found[-1])
    segments = template.segments[variable.start : variable.end]
    wild = [variable.start + to for to, segment in enumerate(segments) if isinstance(segment, Wildcard)]
    name = variable.field_path if len(wild) == 1 else f"{variable.field_path}_{wild.index(at) + 1}"
    pattern = "/".join(segment if isinstance(segment, str) else segment.value for segment in segments)
    return PathParameter(name=name, field=found[-1], part_of=pattern, rest=is_rest)


def _covers(variable: Variable, at: int) -> bool:
    return variable.start <= at and (variable.end is None or at < variable.end)


def _query(message: Descriptor, above: FieldPath, taken: set[tuple[str, ...]]) -> Iterator[QueryParameter]:
    """The fields that a query can set: scalars, lists of them, maps of them, and messages written as text."""
    for field in message.fields:
        path = (*above, field)
        names = tuple(each.name for each in path)
        if names in taken:
            continue
        kind = fields_by_any_name(field.message_type)["value"].message_type if is_map(field) else field.message_type
        if kind is None or (kind.full_name in WELL_KNOWN and kind.full_name != "google.protobuf.Any"):
            yield QueryParameter(name=".".join(names), field=field)
        elif not field.is_repeated and len(path) < MAX_DEPTH and kind.full_name not in _names_of(message, above):
            yield from _query(kind, path, taken)


def _names_of(message: Descriptor, above: FieldPath) -> set[str]:
    """The messages that are being walked through."""
    return {message.full_name, *(field.containing_type.full_name for field in above if field.containing_type)}
