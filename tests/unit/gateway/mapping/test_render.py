"""Messages as HTTP bodies."""

import json

import pytest
from google.protobuf import text_format

from uhm_gateway.errors import ConfigurationError
from uhm_gateway.mapping.descriptors import load_api
from uhm_gateway.mapping.render import Renderer, to_json


def test_fields_without_presence_are_always_printed(renderer, method):
    shown = json.loads(renderer("Whole").render(method("Whole").output_type()).body)
    assert shown == {
        "text": "",
        "number": 0,
        "big": "0",
        "positive": 0,
        "big_positive": "0",
        "flag": False,
        "ratio": 0.0,
        "exact": 0.0,
        "data": "",
        "colour": "COLOUR_UNSPECIFIED",
        "texts": [],
        "numbers": [],
        "colours": [],
        "counts": {},
        "nested_by_number": {},
        "many": [],
        "nothing": None,
        "times": [],
        "renamed": "",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("maybe: 0", {"maybe": 0}),
        ("nested {}", {"nested": ...}),
        ('one: ""', {"one": ""}),
        ("big: 9007199254740993 numbers: 1", {"big": "9007199254740993", "numbers": ["1"]}),
        ("time { seconds: 1 nanos: 5000000 } wait { seconds: 3 }", {"time": "1970-01-01T00:00:01.005Z", "wait": "3s"}),
        ('mask { paths: "a_b" } wrapped { value: 5 }', {"mask": "aB", "wrapped": "5"}),
        ("value { null_value: NULL_VALUE }", {"value": None}),
        ('object { fields { key: "a_b" value { bool_value: true } } }', {"object": {"a_b": True}}),
        ("exact: nan ratio: -inf", {"exact": "NaN", "ratio": "-Infinity"}),
        ('data: "\\377" colour: BLUE', {"data": "/w==", "colour": "BLUE"}),
        ("colour: 9", {"colour": 9}),
        ('counts { key: "é" value: 1 }', {"counts": {"é": 1}}),
        ('any { [type.googleapis.com/kinds.v1.Request] { maybe: 1 id: "x" } }', {"any": ...}),
    ],
)
def test_values(renderer, method, api, text, shown):
    message = text_format.Parse(text, method("Whole").output_type(), descriptor_pool=api.pool)
    body = json.loads(renderer("Whole").render(message).body)
    for name, value in shown.items():
        assert name in body
        assert value is ... or body[name] == value


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("Tags", 'tags: "a"', ["a"]),
        ("Tags", "", []),
        ("Typed", "maybe: 3", 3),
        ("Typed", "", None),
        ("When", "time { seconds: 1 }", "1970-01-01T00:00:01Z"),
        ("When", "", None),
    ],
)
def test_response_body(renderer, method, name, text, shown):
    message = text_format.Parse(text, method(name).output_type())
    assert json.loads(renderer(name).render(message).body) == shown


def test_an_unset_message_as_response_body_is_an_empty_one(renderer, method):
    assert json.loads(renderer("Part").render(method("Part").output_type()).body)["text"] == ""


@pytest.mark.parametrize("name", ["Raw", "RawPart"])
def test_raw_bodies(renderer, method, name):
    message = method(name).output_type()
    body = message if name == "Raw" else message.raw
    body.content_type, body.data = "image/png", b"\x89PNG"
    rendered = renderer(name).render(message)
    assert (rendered.content_type, rendered.body) == (b"image/png", b"\x89PNG")


def test_a_raw_body_without_a_type(renderer, method):
    assert renderer("Raw").render(method("Raw").output_type()).content_type == b"application/octet-stream"


def test_a_message_is_one_line(renderer, method):
    line = renderer("Part").render(method("Part").output_type(part={"text": "a\nb\r\u2028"})).body
    assert json.loads(line)["text"] == "a\nb\r\u2028"
    assert not {b"\n", b"\r"} & {line[at : at + 1] for at in range(len(line))}


def test_json_is_compact_utf_8():
    assert to_json({"a": ["é", 1]}) == '{"a":["é",1]}'.encode()


def test_a_response_body_that_is_not_a_field(compiled):
    proto = """syntax = "proto3"; package p; import "google/api/annotations.proto"; message M {}
    service S { rpc Do(M) returns (M) { option (google.api.http) = { get: "/a" response_body: "nothing" }; } }"""
    api = load_api(compiled(proto))
    method = api.services[0].methods[0]
    with pytest.raises(ConfigurationError, match="'nothing'"):
        Renderer(method, method.bindings[0], pool=api.pool)
