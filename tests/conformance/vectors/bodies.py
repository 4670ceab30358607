"""Requests by their body: the JSON mapping, the three kinds of `body`, and what goes over what."""

from __future__ import annotations

from tests.conformance.vectors.kinds import Accepted, Refused

__all__ = ["BODIES"]

_NAMES = "json: field names, as in JSON and as in the .proto file"
_NULL = "json: null is the absence of a value"
_NUMBERS = "json: numbers, as numbers or strings"
_FLOATS = "json: floats, and their names of what is not finite"
_STRINGS = "json: string, valid Unicode"
_BYTES = "json: bytes, base64"
_ENUMS = "json: enum, by name or number"
_REPEATED = "json: repeated"
_MAPS = "json: map, its keys as strings"
_MESSAGES = "json: message, an object"
_ONEOF = "json: at most one field of a oneof"
_TIMES = "json: Timestamp and Duration"
_MASK = "json: FieldMask"
_WRAPPERS = "json: wrappers, as what they wrap"
_STRUCT = "json: Struct, Value and ListValue"
_ANY = "json: Any, with @type"
_SYNTAX = "json: RFC 8259"
_PROTO2 = "json: proto2"
_DEPTH = "ours: depth is bounded"
_WHOLE = 'http: body "*"'
_FIELD = "http: body names a field"
_NONE = "http: no body"
_OVER = "ours: path over body over query"
_UNKNOWN = "json: unknown fields are refused"
_TYPE = b"type.googleapis.com/"

_BOUND = [
    ("absent", _WHOLE, b"", ""),
    ("empty-object", _MESSAGES, b"{}", ""),
    ("white-space", _SYNTAX, b' \r\n\t{ "text" : "x" } ', 'text: "x"'),
    ("proto-name", _NAMES, b'{"big_positive": 1}', "big_positive: 1"),
    ("json-name", _NAMES, b'{"bigPositive": 1}', "big_positive: 1"),
    ("custom-json-name", _NAMES, b'{"otherName": "a"}', 'renamed: "a"'),
    ("custom-proto-name", _NAMES, b'{"renamed": "a"}', 'renamed: "a"'),
    ("escaped-name", _SYNTAX, b'{"te\\u0078t": "a"}', 'text: "a"'),
    ("null-scalar", _NULL, b'{"text": null, "number": null, "flag": null, "colour": null}', ""),
    ("null-message", _NULL, b'{"nested": null, "time": null, "wrapped": null, "object": null, "any": null}', ""),
    ("null-repeated", _NULL, b'{"texts": null, "counts": null, "maybe": null}', ""),
    ("null-oneof", _NULL, b'{"one": null, "other": 1}', "other: 1"),
    ("null-value", _STRUCT, b'{"value": null}', "value { null_value: NULL_VALUE }"),
    ("null-value-enum", "json: NullValue", b'{"nothing": null}', ""),
    ("null-value-in-oneof", "json: NullValue", b'{"none": null}', "none: NULL_VALUE"),
    (
        "null-value-repeated",
        "json: NullValue",
        b'{"nothings": [null, "NULL_VALUE"]}',
        "nothings: [NULL_VALUE, NULL_VALUE]",
    ),
    ("int32", _NUMBERS, b'{"number": -2147483648}', "number: -2147483648"),
    ("int32-string", _NUMBERS, b'{"number": "2147483647"}', "number: 2147483647"),
    ("int32-escaped-string", _NUMBERS, b'{"number": "2\\u0031"}', "number: 21"),
    ("int32-zero-fraction", _NUMBERS, b'{"number": 100000.000}', "number: 100000"),
    ("int32-exponent", _NUMBERS, b'{"number": 1e5}', "number: 100000"),
    ("int32-exponent-string", _NUMBERS, b'{"number": "1e2"}', "number: 100"),
    ("int32-negative-exponent", _NUMBERS, b'{"number": 100e-2}', "number: 1"),
    ("int32-largest-as-float", _NUMBERS, b'{"number": 2.147483647e9}', "number: 2147483647"),
    ("int32-minus-zero", _NUMBERS, b'{"maybe": -0}', "maybe: 0"),
    ("uint32", _NUMBERS, b'{"positive": 4294967295}', "positive: 4294967295"),
    ("int64-string", _NUMBERS, b'{"big": "-9223372036854775808"}', "big: -9223372036854775808"),
    ("int64-number", _NUMBERS, b'{"big": 9223372036854775807}', "big: 9223372036854775807"),
    ("int64-beyond-doubles", _NUMBERS, b'{"big": 9007199254740993}', "big: 9007199254740993"),
    ("int64-beyond-doubles-fraction", _NUMBERS, b'{"big": 9007199254740993.0}', "big: 9007199254740993"),
    ("uint64-string", _NUMBERS, b'{"bigPositive": "18446744073709551615"}', "big_positive: 18446744073709551615"),
    (
        "sint-and-fixed",
        _NUMBERS,
        b'{"zigzag": -1, "fixed": "1", "signedFixed": -1}',
        "zigzag: -1 fixed: 1 signed_fixed: -1",
    ),
    ("float", _FLOATS, b'{"ratio": 1.5, "exact": -1e300}', "ratio: 1.5 exact: -1e300"),
    ("float-integer", _FLOATS, b'{"ratio": 1, "exact": 2}', "ratio: 1 exact: 2"),
    ("float-string", _FLOATS, b'{"ratio": "1.5", "exact": "1e3"}', "ratio: 1.5 exact: 1000"),
    ("float-largest", _FLOATS, b'{"ratio": 3.4028235e+38}', "ratio: 3.4028235e+38"),
    ("float-smallest", _FLOATS, b'{"exact": 5e-324}', "exact: 5e-324"),
    ("float-minus-zero", _FLOATS, b'{"exact": -0.0}', "exact: -0.0"),
    ("float-nan", _FLOATS, b'{"exact": "NaN"}', "exact: nan"),
    ("float-infinity", _FLOATS, b'{"exact": "Infinity", "ratio": "-Infinity"}', "exact: inf ratio: -inf"),
    ("bool", "json: bool", b'{"flag": true, "wrappedFlag": false}', "flag: true wrapped_flag {}"),
    ("string", _STRINGS, '{"text": "é€😀"}'.encode(), 'text: "é€😀"'),
    ("string-escapes", _STRINGS, b'{"text": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"}', 'text: "\\"\\\\/\\b\\f\\n\\r\\té"'),
    ("string-surrogate-pair", _STRINGS, b'{"text": "\\ud83d\\ude00"}', 'text: "😀"'),
    ("string-nul", _STRINGS, b'{"text": "\\u0000"}', 'text: "\\000"'),
    ("bytes-standard", _BYTES, b'{"data": "+/8="}', 'data: "\\373\\377"'),
    ("bytes-url-safe", _BYTES, b'{"data": "-_8="}', 'data: "\\373\\377"'),
    ("bytes-unpadded", _BYTES, b'{"data": "-_8", "moreDataHere": "aGk"}', 'data: "\\373\\377" more_data_here: "hi"'),
    ("enum-name", _ENUMS, b'{"colour": "BLUE"}', "colour: BLUE"),
    ("enum-alias", _ENUMS, b'{"colour": "AZURE"}', "colour: BLUE"),
    ("enum-number", _ENUMS, b'{"colour": 1}', "colour: RED"),
    ("enum-number-as-string", _ENUMS, b'{"colour": "1"}', "colour: RED"),
    ("enum-unknown-number", _ENUMS, b'{"colour": 17}', "colour: 17"),
    ("repeated", _REPEATED, b'{"texts": ["a", ""], "numbers": ["1", 2]}', 'texts: ["a", ""] numbers: [1, 2]'),
    ("repeated-empty", _REPEATED, b'{"texts": [], "many": []}', ""),
    ("repeated-enums", _REPEATED, b'{"colours": [2, "RED"]}', "colours: [BLUE, RED]"),
    ("repeated-messages", _REPEATED, b'{"many": [{"number": 1}, {}]}', "many { number: 1 } many {}"),
    ("map", _MAPS, b'{"counts": {"a": 1, "": "2"}}', 'counts { key: "a" value: 1 } counts { key: "" value: 2 }'),
    (
        "map-int-key",
        _MAPS,
        b'{"nestedByNumber": {"-3": {"text": "x"}}}',
        'nested_by_number { key: -3 value { text: "x" } }',
    ),
    (
        "map-bool-key",
        _MAPS,
        b'{"textByFlag": {"true": "a", "false": "b"}}',
        'text_by_flag { key: true value: "a" } text_by_flag { key: false value: "b" }',
    ),
    (
        "map-of-values",
        _MAPS,
        b'{"valueByText": {"a": null}}',
        'value_by_text { key: "a" value { null_value: NULL_VALUE } }',
    ),
    ("message", _MESSAGES, b'{"nested": {"nested": {"number": 1}}}', "nested { nested { number: 1 } }"),
    ("message-empty", _MESSAGES, b'{"nested": {}}', "nested {}"),
    ("optional-default-value", "json: presence", b'{"maybe": 0}', "maybe: 0"),
    ("oneof", _ONEOF, b'{"one": ""}', 'one: ""'),
    ("oneof-message", _ONEOF, b'{"third": {"text": "x"}}', 'third { text: "x" }'),
    ("timestamp", _TIMES, b'{"time": "1972-01-01T10:00:20.021Z"}', "time { seconds: 63108020 nanos: 21000000 }"),
    ("timestamp-offset", _TIMES, b'{"time": "1970-01-01T02:00:01+02:00"}', "time { seconds: 1 }"),
    ("timestamp-first", _TIMES, b'{"time": "0001-01-01T00:00:00Z"}', "time { seconds: -62135596800 }"),
    ("duration", _TIMES, b'{"wait": "1.000340012s"}', "wait { seconds: 1 nanos: 340012 }"),
    ("duration-negative", _TIMES, b'{"wait": "-1.5s"}', "wait { seconds: -1 nanos: -500000000 }"),
    ("duration-longest", _TIMES, b'{"wait": "315576000000s"}', "wait { seconds: 315576000000 }"),
    ("mask", _MASK, b'{"mask": "a,bC.dE"}', 'mask { paths: ["a", "b_c.d_e"] }'),
    ("mask-proto-names", "ours: field masks in proto names", b'{"mask": "b_c.d_e"}', 'mask { paths: "b_c.d_e" }'),
    ("mask-empty", _MASK, b'{"mask": ""}', "mask {}"),
    ("wrapper", _WRAPPERS, b'{"wrapped": "7", "wrappedText": "x"}', 'wrapped { value: 7 } wrapped_text { value: "x" }'),
    ("wrapper-default-value", _WRAPPERS, b'{"wrapped": 0, "wrappedText": ""}', "wrapped {} wrapped_text {}"),
    ("wrapper-bytes", _WRAPPERS, b'{"wrappedData": "aGk="}', 'wrapped_data { value: "hi" }'),
    ("wrapper-float", _WRAPPERS, b'{"wrappedRatio": "NaN"}', "wrapped_ratio { value: nan }"),
    ("wrapper-repeated", _WRAPPERS, b'{"wrappeds": [1, "2"]}', "wrappeds { value: 1 } wrappeds { value: 2 }"),
    (
        "struct",
        _STRUCT,
        b'{"object": {"a": 1, "b": {"c": []}}}',
        (
            'object { fields { key: "a" value { number_value: 1 } }'
            ' fields { key: "b" value { struct_value { fields { key: "c" value { list_value {} } } } } } }'
        ),
    ),
    ("struct-empty", _STRUCT, b'{"object": {}}', "object {}"),
    ("value-string", _STRUCT, b'{"value": "x"}', 'value { string_value: "x" }'),
    ("value-number-name", _STRUCT, b'{"value": "NaN"}', 'value { string_value: "NaN" }'),
    ("value-bool", _STRUCT, b'{"value": false}', "value { bool_value: false }"),
    (
        "value-list",
        _STRUCT,
        b'{"value": [1, null]}',
        "value { list_value { values { number_value: 1 } values { null_value: NULL_VALUE } } }",
    ),
    ("value-object", _STRUCT, b'{"value": {}}', "value { struct_value {} }"),
    ("values", _STRUCT, b'{"values": [null, 1]}', "values { null_value: NULL_VALUE } values { number_value: 1 }"),
    ("list", _STRUCT, b'{"list": [[], {}]}', "list { values { list_value {} } values { struct_value {} } }"),
    (
        "any",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'conformance.v1.Upload", "name": "x"}}',
        'any { [type.googleapis.com/conformance.v1.Upload] { name: "x" } }',
    ),
    (
        "any-type-last",
        _ANY,
        b'{"any": {"name": "x", "@type": "' + _TYPE + b'conformance.v1.Upload"}}',
        'any { [type.googleapis.com/conformance.v1.Upload] { name: "x" } }',
    ),
    (
        "any-well-known",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Duration", "value": "1s"}}',
        "any { [type.googleapis.com/google.protobuf.Duration] { seconds: 1 } }",
    ),
    (
        "any-wrapper",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Int64Value", "value": "7"}}',
        "any { [type.googleapis.com/google.protobuf.Int64Value] { value: 7 } }",
    ),
    (
        "any-value-null",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Value", "value": null}}',
        "any { [type.googleapis.com/google.protobuf.Value] { null_value: NULL_VALUE } }",
    ),
    (
        "any-empty-message",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Empty"}}',
        "any { [type.googleapis.com/google.protobuf.Empty] {} }",
    ),
    (
        "any-empty-message-value",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Empty", "value": {}}}',
        "any { [type.googleapis.com/google.protobuf.Empty] {} }",
    ),
    (
        "any-in-any",
        _ANY,
        b'{"any": {"@type": "'
        + _TYPE
        + b'google.protobuf.Any", "value": {"@type": "'
        + _TYPE
        + b'google.protobuf.Duration", "value": "1s"}}}',
        (
            "any { [type.googleapis.com/google.protobuf.Any]"
            " { [type.googleapis.com/google.protobuf.Duration] { seconds: 1 } } }"
        ),
    ),
    ("any-empty", _ANY, b'{"any": {}}', "any {}"),
    ("empty", "json: Empty", b'{"empty": {}}', "empty {}"),
    (
        "dots-in-a-map-key",
        _DEPTH,
        b'{"nestedByNumber": {"1": {"counts": {"' + b"." * 200 + b'": 1}}}}',
        'nested_by_number { key: 1 value { counts { key: "' + "." * 200 + '" value: 1 } } }',
    ),
]
_KINDS = [
    (
        "path-over-body",
        _OVER,
        "POST /v1/body/path",
        "BodyAndPath",
        b'{"text": "body", "number": 1}',
        'text: "path" number: 1',
    ),
    (
        "nested-path-over-body",
        _OVER,
        "PUT /v1/body/path",
        "BodyAndPath",
        b'{"nested": {"text": "body", "number": 1}}',
        'nested { text: "path" number: 1 }',
    ),
    ("path-chooses-of-oneof", _OVER, "POST /v1/body/one/x", "BodyAndPath", b'{"other": 1}', 'one: "x"'),
    ("path-over-query", _OVER, "GET /v1/one/path?text=query", "One", b"", 'text: "path"'),
    ("path-over-query-of-a-whole-body", _OVER, "POST /v1/body/path?text=query", "BodyAndPath", b"{}", 'text: "path"'),
    ("field", _FIELD, "POST /v1/part/i", "Part", b'{"text": "x"}', 'text: "i" nested { text: "x" }'),
    (
        "field-and-query",
        _FIELD,
        "POST /v1/part/i?number=1&texts=a",
        "Part",
        b'{"text": "x"}',
        'text: "i" number: 1 texts: "a" nested { text: "x" }',
    ),
    ("field-empty-object", _FIELD, "POST /v1/part/i", "Part", b"{}", 'text: "i" nested {}'),
    ("field-null", _FIELD, "POST /v1/part/i", "Part", b"null", 'text: "i"'),
    ("field-absent", _FIELD, "POST /v1/part/i", "Part", b"", 'text: "i"'),
    (
        "field-under-path",
        _OVER,
        "PUT /v1/part/path",
        "Part",
        b'{"text": "body", "number": 1}',
        'nested { text: "path" number: 1 }',
    ),
    (
        "field-over-query",
        _OVER,
        "POST /v1/part/i?nested.number=1&nested.flag=true",
        "Part",
        b'{"number": 2}',
        'text: "i" nested { number: 2 }',
    ),
    ("field-repeated", _FIELD, "POST /v1/texts?text=i", "Texts", b'["a", "b"]', 'text: "i" texts: ["a", "b"]'),
    ("field-repeated-messages", _FIELD, "POST /v1/many", "Many", b'[{"text": "x"}, {}]', 'many { text: "x" } many {}'),
    ("field-map", _FIELD, "POST /v1/counts", "Counts", b'{"a": 1}', 'counts { key: "a" value: 1 }'),
    ("field-number", _FIELD, "POST /v1/number", "Number", b"7", "number: 7"),
    ("field-int64", _FIELD, "POST /v1/big", "Big", b'"7"', "big: 7"),
    ("field-enum", _FIELD, "POST /v1/colour", "Colour_", b'"BLUE"', "colour: BLUE"),
    ("field-optional", _FIELD, "POST /v1/maybe", "Maybe", b"0", "maybe: 0"),
    ("field-timestamp", _FIELD, "POST /v1/time", "Time", b'"1970-01-01T00:00:01Z"', "time { seconds: 1 }"),
    ("field-value", _FIELD, "POST /v1/value", "Value", b"[1]", "value { list_value { values { number_value: 1 } } }"),
    ("field-value-null", _FIELD, "POST /v1/value", "Value", b"null", "value { null_value: NULL_VALUE }"),
    ("field-wrapper", _FIELD, "POST /v1/wrapped", "Wrapped", b'"7"', "wrapped { value: 7 }"),
    ("none-leaves-the-body-alone", _NONE, "GET /v1/query?text=x", "Query", b'{"number": 1}', 'text: "x"'),
    ("empty-message", "json: Empty", "POST /v1/nothing", "Nothing", b"{}", ""),
    ("required", _PROTO2, "POST /v1/old", "Old", b'{"needed": "x"}', 'needed: "x"'),
    ("required-in-path", _PROTO2, "GET /v1/old/x", "Old", b"", 'needed: "x"'),
    (
        "group",
        _PROTO2,
        "POST /v1/old",
        "Old",
        b'{"needed": "x", "group": {"text": "a"}}',
        'needed: "x" Group { text: "a" }',
    ),
    ("group-in-query", _PROTO2, "GET /v1/old/x?group.text=a", "Old", b"", 'needed: "x" Group { text: "a" }'),
    ("closed-enum", _PROTO2, "POST /v1/old", "Old", b'{"needed": "x", "closed": 2}', 'needed: "x" closed: SECOND'),
    (
        "proto2-default-value",
        _PROTO2,
        "POST /v1/old",
        "Old",
        b'{"needed": "", "defaulted": 7}',
        'needed: "" defaulted: 7',
    ),
]
_REFUSED = [
    ("cut", _SYNTAX, b'{"text":', "line 1, column 9"),
    ("not-json", _SYNTAX, b'{\n"text": x}', "line 2, column 9"),
    ("two-values", _SYNTAX, b"{} {}", "column 4"),
    ("trailing-comma", _SYNTAX, b'{"text": "x",}', "column"),
    ("single-quotes", _SYNTAX, b"{'text': 'x'}", "column 2"),
    ("comment", _SYNTAX, b"{} // x", "column 4"),
    ("leading-zero", _SYNTAX, b'{"number": 01}', "column 13"),
    ("leading-plus", _SYNTAX, b'{"number": +1}', "column 12"),
    ("hexadecimal", _SYNTAX, b'{"number": 0x1}', "column 13"),
    ("bare-nan", _SYNTAX, b'{"exact": NaN}', "NaN"),
    ("bare-infinity", _SYNTAX, b'{"exact": -Infinity}', "Infinity"),
    ("control-character", _SYNTAX, b'{"text": "\n"}', "column 11"),
    ("byte-order-mark", _SYNTAX, b"\xef\xbb\xbf{}", "column 1"),
    ("utf-16", _SYNTAX, '{"text": "x"}'.encode("utf-16"), "UTF-8"),
    ("not-utf-8", _SYNTAX, b'{"text": "\xff"}', "byte 10"),
    ("key-twice", "json: duplicate names are refused", b'{"text": "a", "text": "b"}', "'text'"),
    (
        "key-in-both-spellings",
        "json: duplicate names are refused",
        b'{"big_positive": 1, "bigPositive": 2}',
        "'bigPositive'",
    ),
    ("array", _MESSAGES, b"[]", "an object"),
    ("null", _MESSAGES, b"null", "an object"),
    ("string", _MESSAGES, b'"x"', "an object"),
    ("unknown", _UNKNOWN, b'{"txt": 1}', "'txt'"),
    ("unknown-null", _UNKNOWN, b'{"txt": null}', "'txt'"),
    ("unknown-nested", _UNKNOWN, b'{"nested": {"txt": 1}}', "'nested.txt'"),
    ("unknown-in-repeated", _UNKNOWN, b'{"many": [{}, {"txt": 1}]}', "'many[1].txt'"),
    ("unknown-surrogate", _UNKNOWN, b'{"\\ud800": 1}', "ud800"),
    ("unknown-case", _UNKNOWN, b'{"BigPositive": 1}', "'BigPositive'"),
    ("string-number", _STRINGS, b'{"text": 1}', "'text'"),
    ("string-lone-surrogate", _STRINGS, b'{"text": "\\ud800"}', "'text'"),
    ("string-surrogates-turned", _STRINGS, b'{"text": "\\ude00\\ud83d"}', "'text'"),
    ("string-lone-surrogate-in-key", _STRINGS, b'{"counts": {"\\ud800": 1}}', "'counts'"),
    ("string-lone-surrogate-in-value", _STRINGS, b'{"value": "\\ud800"}', "'value'"),
    ("string-lone-surrogate-in-struct", _STRINGS, b'{"object": {"\\udc00": 1}}', "'object'"),
    ("int-text", _NUMBERS, b'{"number": "x"}', "'number'"),
    ("int-partly", _NUMBERS, b'{"number": "12abc"}', "'number'"),
    ("int-empty", _NUMBERS, b'{"number": ""}', "'number'"),
    ("int-space", _NUMBERS, b'{"number": " 1"}', "'number'"),
    ("int-fraction", _NUMBERS, b'{"number": 1.5}', "'number'"),
    ("int-tiny-fraction", _NUMBERS, b'{"number": 1.00000000000000000001}', "'number'"),
    ("int-too-large", _NUMBERS, b'{"number": 2147483648}', "'number'"),
    ("int-huge", _NUMBERS, b'{"number": 1e400}', "'number'"),
    ("int-huge-exponent", _NUMBERS, b'{"number": 1e999999999999999999999}', "'number'"),
    ("int-many-digits", _NUMBERS, b'{"number": ' + b"1" * 5000 + b"}", "digits"),
    ("int64-too-large", _NUMBERS, b'{"big": "9223372036854775808"}', "'big'"),
    ("uint-negative", _NUMBERS, b'{"positive": -1}', "'positive'"),
    ("int-bool", _NUMBERS, b'{"number": true}', "'number'"),
    ("int-list", _NUMBERS, b'{"number": [1]}', "'number'"),
    ("bool-string", "json: bool", b'{"flag": "true"}', "'flag'"),
    ("bool-number", "json: bool", b'{"flag": 1}', "'flag'"),
    ("float-too-large", _FLOATS, b'{"ratio": 1e39}', "'ratio'"),
    ("double-too-large", _FLOATS, b'{"exact": 1e400}', "'exact'"),
    ("double-too-large-string", _FLOATS, b'{"exact": "-1e400"}', "'exact'"),
    ("double-lower-case-name", _FLOATS, b'{"exact": "infinity"}', "'exact'"),
    ("bytes-not-base64", _BYTES, b'{"data": "!"}', "'data'"),
    ("bytes-one-digit", _BYTES, b'{"data": "a"}', "'data'"),
    ("bytes-white-space", _BYTES, b'{"data": "aG k"}', "'data'"),
    ("bytes-number", _BYTES, b'{"data": 1}', "'data'"),
    ("enum-unknown", _ENUMS, b'{"colour": "GREEN"}', "'colour'"),
    ("enum-bool", _ENUMS, b'{"colour": true}', "'colour'"),
    ("enum-fraction", _ENUMS, b'{"colour": 1.5}', "'colour'"),
    ("repeated-scalar", _REPEATED, b'{"texts": "a"}', "'texts'"),
    ("repeated-object", _REPEATED, b'{"texts": {"0": "a"}}', "'texts'"),
    ("repeated-null-inside", _REPEATED, b'{"texts": [null]}', "'texts[0]'"),
    ("repeated-null-message", _REPEATED, b'{"many": [null]}', "'many[0]'"),
    ("repeated-null-wrapper", _REPEATED, b'{"wrappeds": [null]}', "'wrappeds[0]'"),
    ("repeated-one-wrong", _REPEATED, b'{"numbers": [1, "x"]}', "'numbers[1]'"),
    ("map-array", _MAPS, b'{"counts": []}', "'counts'"),
    ("map-null-value", _MAPS, b'{"counts": {"a": null}}', "counts"),
    ("map-wrong-value", _MAPS, b'{"counts": {"a": "x"}}', "counts"),
    ("map-wrong-key", _MAPS, b'{"nestedByNumber": {"x": {}}}', "'nestedByNumber'"),
    ("map-bool-key-as-number", _MAPS, b'{"textByFlag": {"1": "x"}}', "'textByFlag'"),
    ("map-key-in-both-spellings", _MAPS, b'{"nestedByNumber": {"1": {}, "01": {}}}', "nestedByNumber"),
    ("message-number", _MESSAGES, b'{"nested": 1}', "'nested'"),
    ("message-array", _MESSAGES, b'{"nested": []}', "'nested'"),
    ("oneof-both", _ONEOF, b'{"one": "a", "other": 1}', "'choice'"),
    ("oneof-null-value-and-other", _ONEOF, b'{"one": "a", "none": null}', "'choice'"),
    ("timestamp-text", _TIMES, b'{"time": "yesterday"}', "'time'"),
    ("timestamp-number", _TIMES, b'{"time": 5}', "'time'"),
    ("timestamp-object", _TIMES, b'{"time": {"seconds": 5}}', "'time'"),
    ("timestamp-without-zone", _TIMES, b'{"time": "1970-01-01T00:00:00"}', "'time'"),
    ("timestamp-lower-case", _TIMES, b'{"time": "1970-01-01t00:00:00z"}', "'time'"),
    ("timestamp-space", _TIMES, b'{"time": "1970-01-01 00:00:00Z"}', "'time'"),
    ("timestamp-too-late", _TIMES, b'{"time": "10000-01-01T00:00:00Z"}', "'time'"),
    ("timestamp-hour-24", _TIMES, b'{"time": "1970-01-01T24:00:00Z"}', "'time'"),
    ("duration-number", _TIMES, b'{"wait": 5}', "'wait'"),
    ("duration-no-unit", _TIMES, b'{"wait": "5"}', "'wait'"),
    ("duration-no-fraction", _TIMES, b'{"wait": "5.s"}', "'wait'"),
    ("duration-too-long", _TIMES, b'{"wait": "315576000001s"}', "'wait'"),
    ("duration-ten-digits", _TIMES, b'{"wait": "0.0000000001s"}', "'wait'"),
    ("mask-array", _MASK, b'{"mask": ["a"]}', "'mask'"),
    ("mask-empty-path", _MASK, b'{"mask": "a,"}', "'mask'"),
    ("wrapper-object", _WRAPPERS, b'{"wrapped": {"value": 7}}', "'wrapped'"),
    ("wrapper-wrong", _WRAPPERS, b'{"wrapped": "x"}', "'wrapped'"),
    ("struct-array", _STRUCT, b'{"object": []}', "'object'"),
    ("list-object", _STRUCT, b'{"list": {}}', "'list'"),
    ("value-huge", _STRUCT, b'{"value": 1e400}', "'value'"),
    ("value-huge-integer", _STRUCT, b'{"value": 1' + b"0" * 400 + b"}", "'value'"),
    ("any-without-type", _ANY, b'{"any": {"name": "x"}}', "'any'"),
    ("any-type-is-a-number", _ANY, b'{"any": {"@type": 1}}', "'any'"),
    ("any-type-without-slash", _ANY, b'{"any": {"@type": "conformance.v1.Upload"}}', "'any'"),
    ("any-unknown-type", _ANY, b'{"any": {"@type": "' + _TYPE + b'not.Known"}}', "'any'"),
    ("any-unknown-field", _ANY, b'{"any": {"@type": "' + _TYPE + b'conformance.v1.Upload", "x": 1}}', "'any.x'"),
    ("any-well-known-without-value", _ANY, b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Duration"}}', "'any'"),
    (
        "any-well-known-and-more",
        _ANY,
        b'{"any": {"@type": "' + _TYPE + b'google.protobuf.Duration", "value": "1s", "x": 1}}',
        "'any'",
    ),
    ("any-without-what-is-required", _ANY, b'{"any": {"@type": "' + _TYPE + b'legacy.v1.Old"}}', "needed"),
    ("any-string", _ANY, b'{"any": "x"}', "'any'"),
    ("empty-with-field", "json: Empty", b'{"empty": {"a": 1}}', "'empty.a'"),
    ("brackets-too-deep", _DEPTH, b"[" * 100_000, "too deeply"),
    ("messages-too-deep", _DEPTH, b'{"nested":' * 100 + b"{}" + b"}" * 100, "too deeply"),
    ("values-too-deep", _DEPTH, b'{"value":' + b"[" * 60 + b"]" * 60 + b"}", "too deeply"),
    ("structs-too-deep", _DEPTH, b'{"object":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}", "too deeply"),
    (
        "anys-too-deep",
        _DEPTH,
        b'{"any":' + (b'{"@type":"' + _TYPE + b'google.protobuf.Any","value":') * 110 + b"{}" + b"}" * 111,
        "too deeply",
    ),
]
_REFUSED_KINDS = [
    ("whole-leaves-nothing-to-the-query", _WHOLE, "POST /v1/body?number=1", b"{}", "'number'"),
    ("whole-unknown-parameter", _WHOLE, "POST /v1/body?txt=1", b"{}", "'txt'"),
    ("field-of-another-type", _FIELD, "POST /v1/texts", b"{}", "'texts'"),
    ("field-whole-message", _FIELD, "POST /v1/number", b'{"number": 1}', "'number'"),
    ("field-unknown", _FIELD, "POST /v1/part/i", b'{"txt": 1}', "'nested.txt'"),
    ("field-oneof-with-query", _ONEOF, "POST /v1/part/i?one=x&other=1", b"{}", "'choice'"),
    ("nothing-with-field", "json: Empty", "POST /v1/nothing", b'{"a": 1}', "'a'"),
    ("required-missing", _PROTO2, "POST /v1/old", b"{}", "needed"),
    ("required-missing-nested", _PROTO2, "POST /v1/old", b'{"needed": "x", "old": {}}', "old.needed"),
    ("closed-enum-unknown-number", _PROTO2, "POST /v1/old", b'{"needed": "x", "closed": 3}', "'closed'"),
]

BODIES = (
    *(
        Accepted(id=f"body-{name}", clause=clause, request="POST /v1/body", method="Body", message=message, body=body)
        for name, clause, body, message in _BOUND
    ),
    *(
        Accepted(id=f"body-{name}", clause=clause, request=request, method=method, message=message, body=body)
        for name, clause, request, method, body, message in _KINDS
    ),
    *(
        Refused(id=f"body-not-{name}", clause=clause, request="POST /v1/body", body=body, names=names)
        for name, clause, body, names in _REFUSED
    ),
    *(
        Refused(id=f"body-not-{name}", clause=clause, request=request, body=body, names=names)
        for name, clause, request, body, names in _REFUSED_KINDS
    ),
)
