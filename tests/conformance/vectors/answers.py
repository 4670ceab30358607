"""Answers: messages as JSON in the names of the .proto file, `response_body`, and google.api.HttpBody."""

from __future__ import annotations

from tests.conformance.vectors.kinds import Answered

__all__ = ["ANSWERED"]

_NAMES = "ours: JSON has the proto names"
_DEFAULTS = "gateway: fields without presence are always there"
_PRESENCE = "json: fields with presence are there where they are set"
_NUMBERS = "json: 64-bit integers are strings"
_FLOATS = "json: floats, and their names of what is not finite"
_WELL_KNOWN = "json: well-known types"
_ANY = "json: Any, with @type"
_FIELD = "http: response_body"
_RAW = "http: google.api.HttpBody is the body as it is"
_PART, _ANYTHING = "POST /v1/part/i", "GET /v1/query"

_OBJECTS = [
    ("text", _DEFAULTS, 'text: "x"', {"text": "x"}, ()),
    ("defaults", _DEFAULTS, "", {"text": "", "number": 0, "big": "0", "flag": False, "ratio": 0.0, "data": ""}, ()),
    ("defaults-enum", _DEFAULTS, "", {"colour": "COLOUR_UNSPECIFIED", "nothing": None}, ()),
    ("defaults-repeated", _DEFAULTS, "", {"texts": [], "counts": {}, "many": [], "times": []}, ()),
    (
        "unset",
        _PRESENCE,
        "",
        {},
        ("nested", "maybe", "one", "other", "third", "none", "time", "wrapped", "object", "value", "any", "empty"),
    ),
    (
        "set-to-default",
        _PRESENCE,
        "maybe: 0 wrapped {} nested {} empty {}",
        {"maybe": 0, "wrapped": "0", "nested": ..., "empty": {}},
        (),
    ),
    ("oneof", _PRESENCE, 'one: ""', {"one": ""}, ("other", "third")),
    ("oneof-null", _PRESENCE, "none: NULL_VALUE", {"none": None}, ("one",)),
    (
        "proto-names",
        _NAMES,
        'big_positive: 1 renamed: "x"',
        {"big_positive": "1", "renamed": "x"},
        ("bigPositive", "otherName"),
    ),
    ("int64", _NUMBERS, "big: 9007199254740993", {"big": "9007199254740993"}, ()),
    ("uint64", _NUMBERS, "big_positive: 18446744073709551615", {"big_positive": "18446744073709551615"}, ()),
    ("int64-repeated", _NUMBERS, "numbers: [1, -2]", {"numbers": ["1", "-2"]}, ()),
    ("fixed", _NUMBERS, "fixed: 1 signed_fixed: -1 zigzag: -1", {"fixed": "1", "signed_fixed": -1, "zigzag": -1}, ()),
    (
        "int32",
        _NUMBERS,
        "number: -2147483648 positive: 4294967295",
        {"number": -2147483648, "positive": 4294967295},
        (),
    ),
    ("float-shortest", _FLOATS, "ratio: 0.1 exact: 0.1", {"ratio": 0.1, "exact": 0.1}, ()),
    ("float-not-finite", _FLOATS, "exact: nan ratio: -inf", {"exact": "NaN", "ratio": "-Infinity"}, ()),
    ("float-infinity", _FLOATS, "exact: inf", {"exact": "Infinity"}, ()),
    ("bytes", "json: bytes, standard base64, padded", 'data: "\\373\\377"', {"data": "+/8="}, ()),
    (
        "enum",
        "json: enum, by name",
        "colour: BLUE colours: [RED, BLUE]",
        {"colour": "BLUE", "colours": ["RED", "BLUE"]},
        (),
    ),
    ("enum-unknown", "json: enum, by number where it has no name", "colour: 17", {"colour": 17}, ()),
    ("string", "json: string", 'text: "é€😀\\"\\\\\\n"', {"text": 'é€😀"\\\n'}, ()),
    ("map", "json: map, its keys as strings", 'counts { key: "é" value: 1 }', {"counts": {"é": 1}}, ()),
    (
        "map-bool-key",
        "json: map, its keys as strings",
        'text_by_flag { key: true value: "x" }',
        {"text_by_flag": {"true": "x"}},
        (),
    ),
    (
        "map-int-key",
        "json: map, its keys as strings",
        "nested_by_number { key: -1 value {} }",
        {"nested_by_number": {"-1": ...}},
        (),
    ),
    ("timestamp", _WELL_KNOWN, "time { seconds: 1 nanos: 5000000 }", {"time": "1970-01-01T00:00:01.005Z"}, ()),
    ("timestamp-nanos", _WELL_KNOWN, "time { nanos: 1 }", {"time": "1970-01-01T00:00:00.000000001Z"}, ()),
    ("duration", _WELL_KNOWN, "wait { seconds: 3 }", {"wait": "3s"}, ()),
    ("duration-negative", _WELL_KNOWN, "wait { nanos: -500000000 }", {"wait": "-0.500s"}, ()),
    ("mask", _WELL_KNOWN, 'mask { paths: ["a_b", "c.d"] }', {"mask": "aB,c.d"}, ()),
    (
        "wrappers",
        _WELL_KNOWN,
        'wrapped { value: 5 } wrapped_text {} wrapped_data { value: "hi" }',
        {"wrapped": "5", "wrapped_text": "", "wrapped_data": "aGk="},
        (),
    ),
    ("value-null", _WELL_KNOWN, "value { null_value: NULL_VALUE }", {"value": None}, ()),
    (
        "struct",
        _WELL_KNOWN,
        'object { fields { key: "a_b" value { bool_value: true } } }',
        {"object": {"a_b": True}},
        (),
    ),
    (
        "list",
        _WELL_KNOWN,
        "list { values { number_value: 1.5 } values { null_value: NULL_VALUE } }",
        {"list": [1.5, None]},
        (),
    ),
    ("nulls", _WELL_KNOWN, "nothings: NULL_VALUE", {"nothings": [None]}, ()),
    (
        "any",
        _ANY,
        "any { [type.googleapis.com/google.protobuf.Duration] { seconds: 1 } }",
        {"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}},
        (),
    ),
]
_WHOLE = [
    ("message", _FIELD, _PART, 'text: "not shown" nested { text: "x" }', {"text": "x"}, ("nested",)),
    ("message-unset", _FIELD, _PART, 'text: "not shown"', {"text": ""}, ("nested",)),
    ("repeated", _FIELD, "POST /v1/texts", 'texts: ["a", "b"]', ["a", "b"], ()),
    ("repeated-empty", _FIELD, "POST /v1/texts", "", [], ()),
    ("map", _FIELD, "POST /v1/counts", 'counts { key: "a" value: 1 }', {"a": 1}, ()),
    ("number", _FIELD, "POST /v1/number", "number: 7", 7, ()),
    ("number-default", _FIELD, "POST /v1/number", "", 0, ()),
    ("int64", _FIELD, "POST /v1/big", "big: 7", "7", ()),
    ("enum", _FIELD, "POST /v1/colour", "colour: RED", "RED", ()),
    ("optional", _FIELD, "POST /v1/maybe", "maybe: 3", 3, ()),
    ("optional-unset", _FIELD, "POST /v1/maybe", "", None, ()),
    ("timestamp", _FIELD, "POST /v1/time", "time { seconds: 1 }", "1970-01-01T00:00:01Z", ()),
    ("timestamp-unset", _FIELD, "POST /v1/time", "", None, ()),
    ("wrapper", _FIELD, "POST /v1/wrapped", "wrapped { value: 7 }", "7", ()),
    ("value", _FIELD, "POST /v1/value", "value { list_value {} }", [], ()),
    ("empty-message", "json: Empty", "POST /v1/nothing", "", {}, ("anything",)),
    (
        "group",
        "json: proto2",
        "POST /v1/old",
        'needed: "x" Group { text: "a" } closed: SECOND',
        {"needed": "x", "group": {"text": "a"}, "closed": "SECOND"},
        ("defaulted",),
    ),
]
_RAWS = [
    ("whole", "POST /v1/raw/n", 'content_type: "image/png" data: "\\211PNG"', b"\x89PNG", "image/png"),
    ("whole-without-a-type", "POST /v1/raw/n", 'data: "x"', b"x", "application/octet-stream"),
    ("whole-empty", "POST /v1/raw/n", "", b"", "application/octet-stream"),
    ("field", "POST /v1/raw", 'name: "not shown" body { content_type: "text/csv" data: "a,b" }', b"a,b", "text/csv"),
    ("json-as-it-is", "POST /v1/raw/n", 'content_type: "application/json" data: "{ }"', b"{ }", "application/json"),
]

ANSWERED = (
    *(
        Answered(id=f"answer-{name}", clause=clause, request=_ANYTHING, message=message, body=body, absent=absent)
        for name, clause, message, body, absent in _OBJECTS
    ),
    *(
        Answered(id=f"answer-field-{name}", clause=clause, request=request, message=message, body=body, absent=absent)
        for name, clause, request, message, body, absent in _WHOLE
    ),
    *(
        Answered(
            id=f"answer-raw-{name}", clause=_RAW, request=request, message=message, body=body, content_type=content_type
        )
        for name, request, message, body, content_type in _RAWS
    ),
)
