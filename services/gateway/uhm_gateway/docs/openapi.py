"""An API as an OpenAPI 3.1 document, made from its descriptors and their comments."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uhm_gateway.docs.operations import operation_of
from uhm_gateway.docs.permissions import permissions_of
from uhm_gateway.docs.responses import HEADERS, MEANINGS, error_response, errors_of, first_sentence, header_refs
from uhm_gateway.docs.schemas import Direction, Schema, Schemas
from uhm_gateway.mapping.fields import is_map
from uhm_gateway.mapping.match import ANY_METHOD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from google.protobuf.descriptor import FieldDescriptor

    from uhm_gateway.docs.operations import Body, Operation, PathParameter, QueryParameter
    from uhm_gateway.mapping.descriptors import Api, Method, Service
    from uhmalguhm.access.v1.access_pb2 import Access

__all__ = ["openapi_document", "titles_of"]

_VARIABLE = re.compile(r"\{([^}]*)\}")
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_ANY = ("get", "put", "post", "delete", "patch")
_ACCESS_TOKEN, _REFRESH_TOKEN, _API_KEY = "accessToken", "refreshToken", "apiKey"
_JSON, _LINES, _EVENTS, _BYTES = "application/json", "application/x-ndjson", "text/event-stream", "*/*"

CONVENTIONS = """\
Names in JSON are those of the .proto files, in snake_case; requests may write them in camelCase, too. 64-bit integers
are strings. A field that a request does not give, or gives as null, has its default; fields and query parameters that
are not known are refused.

Every answer has an `x-request-id`, the client's own where it sent one. `Grpc-Timeout: 5S` bounds how long a call may
take. Errors are `{"code", "message", "details"}` with the codes of gRPC; a method that a path does not answer is
refused with 405 and `Allow`. HEAD answers as GET does, without the body.

The same methods answer gRPC under the names in `x-grpc-method`."""
_SCHEMES: dict[str, Schema] = {
    _ACCESS_TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of a login. `admin` beside it: only of an administrator.",
    },
    _REFRESH_TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The refresh token of a login.",
    },
    _API_KEY: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "API key",
        "description": "An API key that was given the scope named beside it.",
    },
}
_IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Chosen by the client, once for each thing to make: a call that is repeated with it within 24 hours"
    " is answered as the first one was, and makes nothing new.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_IF_NONE_MATCH: Schema = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of an answer that the client has: 304 where it still is the answer.",
    "schema": {"type": "string", "pattern": '^(W/)?"[!#-~]*"$'},
}


def openapi_document(api: Api, *, served: Sequence[str]) -> dict[str, Any]:
    """The document for the services in `served`, in that order."""
    by_name = {service.full_name: service for service in api.services}
    return _Builder(api, [by_name[name] for name in served]).document()


def titles_of(services: Iterable[Service]) -> dict[str, str]:
    """The services' own names by their full ones, which stand for themselves where two have the same."""
    names = {service.full_name: service.full_name.rpartition(".")[2] for service in services}
    count = Counter(names.values())
    return {full: name if count[name] == 1 else full for full, name in names.items()}


class _Builder:
    """Gathers one document."""

    def __init__(self, api: Api, services: Sequence[Service]) -> None:
        self._api = api
        self._services = services
        self._titles = titles_of(services)
        answered = (method.descriptor.output_type for service in services for method in service.methods)
        self._schemas = Schemas(api.comments, answered=answered)
        self._status = self._schemas.status()
        self._responses: dict[str, Schema] = {}
        self._schemes: set[str] = set()
        self._paths: dict[str, dict[str, Any]] = {}
        self._by_shape: dict[str, str] = {}

    def document(self) -> dict[str, Any]:
        for service in self._services:
            for method in service.methods:
                for at, binding in enumerate(method.bindings):
                    self._add(service, operation_of(method, binding), at)
        packages = sorted({service.full_name.rpartition(".")[0] for service in self._services})
        told = [self._api.comments.get(package, "") for package in packages]
        return {
            "openapi": "3.1.0",
            "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
            "info": {
                "title": next((package.split(".")[0] for package in packages if package), "API"),
                "version": next((part for package in packages for part in package.split(".")[-1:] if part), "1"),
                "description": "\n\n".join([*(f"- {' '.join(text.split())}" for text in told if text), CONVENTIONS]),
            },
            "servers": [{"url": "/"}],
            "tags": [
                {"name": self._titles[service.full_name], "description": service.comment} for service in self._services
            ],
            "paths": dict(sorted(self._paths.items())),
            "components": {
                "schemas": dict(sorted(self._schemas.components.items())),
                "responses": dict(sorted(self._responses.items())),
                "headers": dict(HEADERS),
                "securitySchemes": {name: _SCHEMES[name] for name in _SCHEMES if name in self._schemes},
            },
        }

    def _add(self, service: Service, operation: Operation, at: int) -> None:
        operation = self._renamed(operation)
        item = self._paths.setdefault(operation.path, {})
        verb = operation.http_method.lower()
        identifier = f"{self._titles[service.full_name].replace('.', '_')}_{operation.method.name}"
        identifier += f"_{at + 1}" if at else ""
        described = self._operation(service, operation)
        if operation.http_method == ANY_METHOD:
            for each in _ANY:
                item.setdefault(each, {"operationId": f"{identifier}_{each}", **described})
        elif verb in _METHODS and verb not in item:
            item[verb] = {"operationId": identifier, **described}
        else:  # what OpenAPI 3.1 has no place for: other methods, and `/{name=**}` beside `/{name}`
            others = item.setdefault("x-additional-operations", {})
            others[f"{operation.http_method} {operation.binding.template.text}"] = {
                "operationId": identifier,
                **described,
            }

    def _renamed(self, operation: Operation) -> Operation:
        """The operation with the variables' names of another of the same path: OpenAPI has `/{a}` and `/{b}` once."""
        path = self._by_shape.setdefault(_VARIABLE.sub("{}", operation.path), operation.path)
        names = _VARIABLE.findall(path)
        in_path = tuple(replace(each, name=name) for each, name in zip(operation.in_path, names, strict=True))
        return replace(operation, path=path, in_path=in_path)

    def _operation(self, service: Service, operation: Operation) -> dict[str, Any]:
        method = operation.method
        access = permissions_of(method, pool=self._api.pool)
        summary, description = first_sentence(method.comment)
        described: dict[str, Any] = {
            "tags": [self._titles[service.full_name]],
            "summary": summary.rstrip(".") or method.name,
            "description": "\n\n".join(part for part in (description, _asks(access)) if part),
            "x-grpc-method": method.path.removeprefix("/"),
        }
        if method.descriptor.GetOptions().deprecated:
            described["deprecated"] = True
        if parameters := list(self._parameters(operation, access)):
            described["parameters"] = parameters
        if operation.body is not None:
            described["requestBody"] = self._body(operation.body, method)
        described["responses"] = self._successes(operation) | {
            str(status): self._error(status, meaning) for status, meaning in errors_of(operation, access).items()
        }
        if access is not None:
            described["security"] = list(_security(access))
            self._schemes.update(name for each in described["security"] for name in each)
        return described

    def _parameters(self, operation: Operation, access: Access | None) -> Iterator[Schema]:
        for path_parameter in operation.in_path:
            yield self._path_parameter(path_parameter)
        for query_parameter in operation.in_query:
            yield self._query_parameter(query_parameter)
        if access is not None and access.idempotency_key:
            yield dict(_IDEMPOTENCY_KEY)
        if _has_tag(operation):
            yield dict(_IF_NONE_MATCH)

    def _path_parameter(self, parameter: PathParameter) -> Schema:
        field = parameter.field
        schema: Schema = {"type": "string"}
        if field is not None and not parameter.part_of:
            schema = self._parameter_schema(field)
        if schema.get("type") == "string" and not parameter.rest and "enum" not in schema:
            schema.setdefault("minLength", 1)
        comment = self._api.comments.get(field.full_name, "") if field is not None else ""
        part = f"A wildcard of `{parameter.part_of}`." if parameter.part_of else ""
        rest = "May have several segments." if parameter.rest else ""
        text = " ".join(each for each in (comment, part, rest) if each)
        return {
            "name": parameter.name,
            "in": "path",
            "required": True,
            **({"description": text} if text else {}),
            "schema": schema,
        }

    def _query_parameter(self, parameter: QueryParameter) -> Schema:
        schema = self._schemas.field(parameter.field, Direction.REQUEST)
        described: Schema = {"name": parameter.name, "in": "query"}
        if text := schema.pop("description", ""):
            described["description"] = text
        if schema.pop("deprecated", False):
            described["deprecated"] = True
        if _is_json(parameter.field):
            return described | {"content": {_JSON: {"schema": schema}}}
        if is_map(parameter.field):
            described |= {"style": "deepObject", "explode": True}
        return described | {"schema": _without_null(schema)}

    def _parameter_schema(self, field: FieldDescriptor) -> Schema:
        schema = self._schemas.field(field, Direction.REQUEST)
        schema.pop("description", None)
        return _without_null(schema)

    def _body(self, body: Body, method: Method) -> Schema:
        if body.is_raw:
            return {"description": "Any bytes, of any type.", "content": {_BYTES: {}}}
        if body.field is not None:
            schema = self._schemas.field(body.field, Direction.REQUEST)
        elif body.is_whole:
            schema = self._schemas.message(body.message, Direction.REQUEST)
        else:
            schema = self._schemas.of_fields(body.message, body.fields, Direction.REQUEST)
        return {"content": {_LINES: _lines(schema)} if method.client_streaming else {_JSON: {"schema": schema}}}

    def _successes(self, operation: Operation) -> dict[str, Schema]:
        if not _has_tag(operation):
            return {"200": self._success(operation, header_refs({}))}
        headers = header_refs({"ETag": "ETag"})
        same = {"description": "The answer is the one that the client has.", "headers": headers}
        return {"200": self._success(operation, headers), "304": same}

    def _success(self, operation: Operation, headers: Schema) -> Schema:
        answer = {"description": _answered(self._api, operation), "headers": headers}
        if operation.is_raw:
            return answer | {"content": {_BYTES: {}}}
        if operation.answer_field is not None:
            schema = _nullable(operation.answer_field, self._schemas)
        else:
            schema = self._schemas.message(operation.answer, Direction.RESPONSE)
        if operation.method.server_streaming:
            line = {
                "type": "object",
                "properties": {"result": schema, "error": self._status},
                "minProperties": 1,
                "maxProperties": 1,
            }
            return answer | {"content": {_LINES: _lines(line), _EVENTS: _lines(line)}}
        return answer | {"content": {_JSON: {"schema": schema}}}

    def _error(self, status: int, meaning: str) -> Schema:
        """A reference to the status's usual response, or one of its own where the method says more."""
        if meaning == MEANINGS[status]:
            self._responses.setdefault(str(status), error_response(status, meaning, self._status))
            return {"$ref": f"#/components/responses/{status}"}
        return error_response(status, meaning, self._status)


def _security(access: Access) -> Iterator[dict[str, list[str]]]:
    """The alternatives that let a caller in; OpenAPI 3.1 takes roles beside schemes that are not OAuth's."""
    if access.public:
        kinds = {"access": _ACCESS_TOKEN, "refresh": _REFRESH_TOKEN}
        for kind in access.bearer:
            yield {kinds[kind]: []}
        return
    yield {_ACCESS_TOKEN: ["admin"] if access.admin else []}
    if access.scope:
        yield {_API_KEY: [access.scope]}


def _asks(access: Access | None) -> str:
    """What a caller needs, for those who read."""
    if access is None:
        return ""
    if access.public:
        tokens = " or ".join(access.bearer)
        return f"Takes the {tokens} token as `Authorization: Bearer …`." if tokens else "Needs no token."
    who = "Needs the access token of an administrator" if access.admin else "Needs an access token"
    return f"{who}, or an API key with the scope `{access.scope}`." if access.scope else f"{who}; takes no API key."


def _answered(api: Api, operation: Operation) -> str:
    if operation.method.server_streaming:
        return "A stream of bytes." if operation.is_raw else "A stream of such objects: as lines, or as events."
    if operation.is_raw:
        return "Bytes, of the type that `content-type` names."
    return api.comments.get(operation.answer.full_name, "") or "Done."


def _lines(schema: Schema) -> Schema:
    """A media type of many JSON texts; OpenAPI 3.2 says `itemSchema` for the schema of each."""
    return {"schema": {"type": "string"}, "x-itemSchema": schema}


def _nullable(field: FieldDescriptor, schemas: Schemas) -> Schema:
    """What `response_body` answers: null for what is not set and has no empty form of its own."""
    schema = schemas.field(field, Direction.RESPONSE)
    is_set = not field.has_presence or (field.message_type is not None and "$ref" in schema)
    return schema if is_set else {"anyOf": [schema, {"type": "null"}]}


def _has_tag(operation: Operation) -> bool:
    """Whether answers have an ETag: those that are whole, and change nothing."""
    return operation.http_method == "GET" and not operation.method.server_streaming


def _is_json(field: FieldDescriptor) -> bool:
    """Whether a parameter holds a JSON text: values whose type is not told by the field."""
    kind = field.message_type
    return kind is not None and kind.full_name in {
        "google.protobuf.Struct",
        "google.protobuf.Value",
        "google.protobuf.ListValue",
    }


def _without_null(schema: Schema) -> Schema:
    """The schema of a wrapper as a parameter, which cannot say null."""
    match schema.get("anyOf"):
        case [wrapped, {"type": "null"}]:
            return {**wrapped, **{name: value for name, value in schema.items() if name != "anyOf"}}
    return schema
