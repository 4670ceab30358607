"""The OpenAPI document: valid, complete, and true about what the mapping takes and answers."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from uhm_gateway.docs.openapi import openapi_document
from uhm_gateway.errors import BadRequest
from uhm_gateway.mapping.bind import Binder
from uhm_gateway.mapping.descriptors import load_api, packaged_descriptor_set
from uhm_gateway.mapping.render import Renderer

PATHS = """
syntax = "proto3";
package shop.v2;
import "google/api/annotations.proto";

// Sells. It also buys.
service Shop {
  rpc One(Ask) returns (Told) { option (google.api.http) = { get: "/v2/{name=shelves/*/books/*}:read" }; }
  rpc Rest(Ask) returns (Told) { option (google.api.http) = { get: "/v2/files/{name=**}" }; }
  rpc Part(Ask) returns (Told) { option (google.api.http) = { get: "/v2/{name=shelves/*}" }; }
  rpc Bare(Ask) returns (Told) { option (google.api.http) = { get: "/v2/*/bare" }; }
  rpc Left(Ask) returns (Told) { option (google.api.http) = { get: "/v2/same/{name}" }; }
  rpc Right(Ask) returns (Told) { option (google.api.http) = { delete: "/v2/same/{inner.text}" }; }
  rpc Every(Ask) returns (Told) { option (google.api.http) = { custom { kind: "*" path: "/v2/every" } }; }
  rpc Other(Ask) returns (Told) { option (google.api.http) = { custom { kind: "PURGE" path: "/v2/other" } }; }
  rpc Star(Ask) returns (Told) { option (google.api.http) = { get: "/v2/star/{name}" }; }
  rpc Stars(Ask) returns (Told) { option (google.api.http) = { get: "/v2/star/{name=**}" }; }
  rpc Old(Ask) returns (Told) { option deprecated = true; option (google.api.http) = { get: "/v2/old" }; }
  rpc Lines(stream Ask) returns (stream Told) { option (google.api.http) = { post: "/v2/lines" body: "*" }; }
  rpc Inner(Ask) returns (Told) { option (google.api.http) = { put: "/v2/inner/{name}" body: "*" }; }
  rpc Unbound(Ask) returns (Told);
}

message Ask {
  string name = 1;
  // The inner comment.
  Inside inner = 2;
  Ask again = 3;
  oneof choice { string left = 4; int32 right = 5; }
  string gone = 6 [deprecated = true];
}
message Inside { string text = 1; repeated int64 numbers = 2; map<string, int32> counts = 3; }
message Told { Inside inner = 1; string kept = 2 [debug_redact = true]; }
"""


def document(api, *, without: str = "") -> dict[str, Any]:
    return openapi_document(api, served=[each.full_name for each in api.services if each.full_name != without])


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    return document(load_api(packaged_descriptor_set()))


@pytest.fixture(scope="module")
def kinds(api) -> dict[str, Any]:
    return document(api)


@pytest.fixture
def shop(compiled) -> dict[str, Any]:
    return document(load_api(compiled(PATHS)))


def operations(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: {**operation, "path": path, "verb": verb}
        for path, item in found["paths"].items()
        for verb, operation in item.items()
        if not verb.startswith("x-")
    }


@pytest.mark.parametrize("name", ["ours", "kinds", "shop"])
def test_it_is_valid_openapi(name, request):
    assert list(OpenAPIV31SpecValidator(request.getfixturevalue(name)).iter_errors()) == []


def test_the_validator_finds_what_is_wrong(ours):
    broken = json.loads(json.dumps(ours))
    del broken["paths"]["/api/v1/user"]["get"]["responses"]["200"]["description"]
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def test_every_binding_is_there(ours):
    api = load_api(packaged_descriptor_set())
    expected = [
        (binding.http_method.lower(), re.sub(r"{[^}]*}", "{}", binding.template.text))
        for service in api.services
        for method in service.methods
        for binding in method.bindings
    ]
    shown = [(each["verb"], re.sub(r"{[^}]*}", "{}", each["path"])) for each in operations(ours).values()]
    assert sorted(shown) == sorted(expected)


def test_what_a_method_is_called_and_says(ours):
    first, second = (operations(ours)[f"ImageService_CreateImage{suffix}"] for suffix in ("", "_2"))
    assert (first["path"], second["path"]) == ("/api/v1/images", "/api/v1/container/create")
    assert first["tags"] == ["ImageService"]
    assert first["summary"] == "Asks for an image and answers at once; the work goes on in the background"
    assert first["x-grpc-method"] == "uhmalguhm.builder.v1.ImageService/CreateImage"
    tag = next(tag for tag in ours["tags"] if tag["name"] == "ImageService")
    assert tag["description"] == "Makes images out of container images and Dockerfiles."


def test_services_of_the_same_name_are_told_apart(compiled):
    proto = 'syntax = "proto3"; package {}; service S {{ rpc M(E) returns (E); }} message E {{}}'
    apis = [load_api(compiled(proto.format(package))) for package in ("a.v1", "b.v1")]
    services = tuple(service for api in apis for service in api.services)
    both = type(apis[0])(pool=apis[0].pool, services=services, comments={})
    assert [tag["name"] for tag in document(both)["tags"]] == ["a.v1.S", "b.v1.S"]


def test_who_may_call(ours):
    found = operations(ours)
    assert found["AuthService_CreateUser"]["security"] == []
    assert found["AuthService_RefreshToken"]["security"] == [{"refreshToken": []}]
    assert found["ImageService_GetImage"]["security"] == [{"accessToken": []}, {"apiKey": ["images.read"]}]
    assert found["AuditService_ListEvents"]["security"] == [{"accessToken": ["admin"]}, {"apiKey": ["audit.read"]}]
    assert found["ApiKeyService_CreateApiKey"]["security"] == [{"accessToken": []}]
    assert found["ApiKeyService_CreateApiKey"]["description"].endswith("Needs an access token; takes no API key.")
    assert set(ours["components"]["securitySchemes"]) == {"accessToken", "refreshToken", "apiKey"}


def test_statuses_are_those_that_can_happen(ours):
    found = {name: set(operation["responses"]) for name, operation in operations(ours).items()}
    always = {"200", "400", "414", "429", "431", "500", "503", "504"}
    assert found["AuthService_GetKeys"] == always | {"304"}
    assert found["ImageService_ListImages"] == always | {"304", "401", "403"}
    assert found["ImageService_WatchImage"] == always | {"401", "403", "404"}
    assert found["AuthService_CreateUser"] >= always | {"403", "408", "409", "413", "415"}
    assert found["AuthService_CreateUser"].isdisjoint({"401", "404"})


def test_a_status_that_the_comment_tells_of_has_its_words(ours):
    responses = operations(ours)["ImageService_DeleteImage"]["responses"]
    assert responses["400"]["description"].startswith("Fails with FAILED_PRECONDITION while a machine uses it")
    assert responses["404"] == {"$ref": "#/components/responses/404"}


def test_headers_that_come_with_errors(ours):
    headers = {status: set(response["headers"]) for status, response in ours["components"]["responses"].items()}
    assert headers["401"] == {"x-request-id", "WWW-Authenticate"}
    assert headers["429"] == headers["503"] == {"x-request-id", "Retry-After"}
    assert headers["404"] == {"x-request-id"}
    assert headers["431"] == headers["404"]


def test_idempotency_keys_only_where_they_work(ours):
    has_key = {
        name
        for name, operation in operations(ours).items()
        if any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", ()))
    }
    assert {"ImageService_CreateImage", "MachineService_CreateMachine"} <= has_key
    assert "ImageService_DeleteImage" not in has_key


def test_without_the_option_any_status_may_come(kinds):
    operation = operations(kinds)["Kinds_Whole"]
    assert {"401", "404", "409", "499", "501"} <= set(operation["responses"])
    assert "security" not in operation


@pytest.mark.parametrize(
    ("name", "path", "parameters"),
    [
        ("Shop_One", "/v2/shelves/{name_1}/books/{name_2}:read", ["name_1", "name_2"]),
        ("Shop_Rest", "/v2/files/{name}", ["name"]),
        ("Shop_Part", "/v2/shelves/{name}", ["name"]),
        ("Shop_Bare", "/v2/{segment_2}/bare", ["segment_2"]),
        ("Shop_Left", "/v2/same/{name}", ["name"]),
        ("Shop_Right", "/v2/same/{name}", ["name"]),
    ],
)
def test_paths(shop, name, path, parameters):
    operation = operations(shop)[name]
    assert operation["path"] == path
    assert [each["name"] for each in operation["parameters"] if each["in"] == "path"] == parameters


def test_what_openapi_has_no_place_for(shop):
    assert list(shop["paths"]["/v2/other"]["x-additional-operations"]) == ["PURGE /v2/other"]
    assert list(shop["paths"]["/v2/star/{name}"]["x-additional-operations"]) == ["GET /v2/star/{name=**}"]
    assert {"Shop_Every_get", "Shop_Every_post"} <= set(operations(shop))


def test_query_parameters(shop):
    all_of_them = operations(shop)["Shop_Old"]["parameters"]
    parameters = {each["name"]: each for each in all_of_them if each["in"] == "query"}
    assert set(parameters) == {
        "name", "inner.text", "inner.numbers", "inner.counts", "left", "right", "gone",
    }  # fmt: skip
    assert parameters["inner.numbers"]["schema"]["items"]["format"] == "int64"
    assert parameters["inner.counts"]["style"] == "deepObject"
    assert parameters["left"]["description"] == "At most one of `left`, `right`."
    assert parameters["gone"]["deprecated"] is True
    assert operations(shop)["Shop_Old"]["deprecated"] is True


def test_bodies(shop, kinds, ours):
    inner = operations(shop)["Shop_Inner"]
    body = inner["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"inner", "again", "left", "right", "gone"}
    assert [each["name"] for each in inner["parameters"]] == ["name"]
    part = operations(kinds)["Kinds_Part"]
    assert part["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("kinds.v1.Everything-input")
    assert part["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("kinds.v1.Everything")
    assert {"id", "part.text"} <= {each["name"] for each in part["parameters"] if each["in"] == "path"}
    assert not {each["name"] for each in part["parameters"] if each["in"] == "query"} & {"part.number", "part.text"}
    assert operations(kinds)["Kinds_Raw"]["requestBody"]["content"] == {"*/*": {}}
    assert operations(kinds)["Kinds_Raw"]["responses"]["200"]["content"] == {"*/*": {}}
    assert operations(ours)["ImageService_UploadContext"]["requestBody"]["content"] == {"*/*": {}}


def test_streams(shop):
    lines = operations(shop)["Shop_Lines"]
    (taken,) = lines["requestBody"]["content"].items()
    assert taken == ("application/x-ndjson", {"schema": {"type": "string"}, "x-itemSchema": taken[1]["x-itemSchema"]})
    answered = lines["responses"]["200"]["content"]
    assert set(answered) == {"application/x-ndjson", "text/event-stream"}
    item = answered["application/x-ndjson"]["x-itemSchema"]
    assert item["properties"]["result"] == {"$ref": "#/components/schemas/shop.v2.Told"}


def test_fields_that_are_not_shown_to_onlookers(shop):
    kept = shop["components"]["schemas"]["shop.v2.Told"]["properties"]["kept"]
    assert kept == {"type": "string", "format": "password"}


def validator(found: dict[str, Any], name: str) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": found["components"]}
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_ENUM: st.sampled_from([0, 1, 2]),
    FieldDescriptor.CPPTYPE_STRING: st.text(st.characters(codec="utf-8"), max_size=8),
}


@given(data=st.data())
def test_whatever_is_answered_fits_its_schema(api, method, kinds, data):
    message = method("Whole").output_type()
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None or field.full_name.endswith(".nothing"):
            continue
        of_type = st.binary(max_size=8) if field.type == FieldDescriptor.TYPE_BYTES else SCALARS[field.cpp_type]
        value = data.draw(st.lists(of_type, max_size=3) if field.is_repeated else st.none() | of_type, field.name)
        if field.is_repeated:
            getattr(message, field.name).extend(value)
        elif value is not None:
            setattr(message, field.name, value)
    message.wait.seconds, message.time.seconds = 90, 1_800_000_000
    message.counts["a"], message.nested_by_number[-3].text = 1, "inside"
    message.object.update({"a": [1, None]})
    message.any.Pack(message.wait)
    message.wrapped.value = 5
    rendered = Renderer(method("Whole"), method("Whole").bindings[0], pool=api.pool).render(message)
    validator(kinds, "kinds.v1.Everything").validate(json.loads(rendered.body))


TAKEN = {
    "text": "t",
    "number": -5,
    "big": "-9007199254740993",
    "big_positive": "18446744073709551615",
    "ratio": "NaN",
    "exact": 0.5,
    "data": base64.b64encode(b"\xff\x00").decode(),
    "colour": "RED",
    "counts": {"a": 1},
    "nested_by_number": {"-7": {"text": "x"}},
    "nested": {"nested": {}},
    "many": [{}, {"flag": True}],
    "maybe": 0,
    "other": 3,
    "time": "2026-01-02T03:04:05.678Z",
    "wait": "1.500s",
    "mask": "text,nestedByNumber",
    "wrapped": "12",
    "wrapped_text": None,
    "object": {"a": [None]},
    "value": None,
    "any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"},
    "nothing": None,
    "renamed": "r",
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_schema_allows_is_taken(kinds, binder, name):
    body = {name: TAKEN[name]}
    validator(kinds, "kinds.v1.Everything-input").validate(body)
    bind(binder("Body"), body)


@pytest.mark.parametrize(
    "body",
    [{"txt": "x"}, {"number": "x"}, {"number": 2**31}, {"text": 5}, {"texts": "x"}, {"colour": "GREEN"}, {"big": "1.5"},
     {"flag": 1}, {"counts": []}, {"nested": {"nested": {"no": 1}}}, {"wait": "5"}, {"counts": {"a": {}}}, []],
)  # fmt: skip
def test_what_is_refused_does_not_fit_its_schema(kinds, binder, body):
    assert not validator(kinds, "kinds.v1.Everything-input").is_valid(body)
    with pytest.raises(BadRequest):
        bind(binder("Body"), body)


def bind(binder: Binder, body: Any) -> None:
    binder.bind(captured=(), query="", body=json.dumps(body).encode())


def test_response_bodies_that_may_be_null(kinds):
    schema = operations(kinds)["Kinds_Typed"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"type": "null"} in schema["anyOf"]
