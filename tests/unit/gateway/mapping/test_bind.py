"""HTTP requests as messages."""

import contextlib
import json
import math
from urllib.parse import urlencode

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from uhm_gateway.errors import BadRequest, ConfigurationError
from uhm_gateway.mapping.bind import Binder
from uhm_gateway.mapping.descriptors import load_api


def same(message, expected):
    return message == text_format.Parse(expected, type(message)())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("text=a%20b+c", 'text: "a b c"'),
        ("text=", ""),
        ("number=-5&big=9223372036854775807", "number: -5 big: 9223372036854775807"),
        (
            "positive=4294967295&big_positive=18446744073709551615",
            "positive: 4294967295 big_positive: 18446744073709551615",
        ),
        ("bigPositive=1", "big_positive: 1"),
        ("otherName=x", 'renamed: "x"'),
        ("flag=true", "flag: true"),
        ("ratio=1.5&exact=-1e300", "ratio: 1.5 exact: -1e300"),
        ("exact=-Infinity", "exact: -inf"),
        ("data=aGk_&wrapped_data=aGk=", 'data: "hi?" wrapped_data { value: "hi" }'),
        ("data=aGk/", 'data: "hi?"'),
        ("colour=RED", "colour: RED"),
        ("colour=2", "colour: BLUE"),
        ("colour=17", "colour: 17"),
        ("texts=a&texts=b", 'texts: "a" texts: "b"'),
        ("numbers=1&numbers=2&colours=RED&colours=2", "numbers: [1, 2] colours: [RED, BLUE]"),
        ("counts[a]=1&counts[b.c]=2", 'counts { key: "a" value: 1 } counts { key: "b.c" value: 2 }'),
        ("nested.text=x&nested.nested.number=1", 'nested { text: "x" nested { number: 1 } }'),
        ("nested.bigPositive=3", "nested { big_positive: 3 }"),
        ("maybe=0", "maybe: 0"),
        ("one=x", 'one: "x"'),
        ("third.text=x&third.number=1", 'third { text: "x" number: 1 }'),
        ("time=2024-02-29T12:00:00.5Z", "time { seconds: 1709208000 nanos: 500000000 }"),
        ("wait=1.5s", "wait { seconds: 1 nanos: 500000000 }"),
        ("mask=a,bC.d", 'mask { paths: "a" paths: "b_c.d" }'),
        ("wrapped=-7&wrapped_text=x", 'wrapped { value: -7 } wrapped_text { value: "x" }'),
        ("value=1.5", "value { number_value: 1.5 }"),
        ('object={"a":"b"}', 'object { fields { key: "a" value { string_value: "b" } } }'),
        ("times=1970-01-01T00:00:01Z&times=1970-01-01T00:00:02Z", "times { seconds: 1 } times { seconds: 2 }"),
    ],
)
def test_query(binder, query, expected):
    assert same(binder("Query").bind(captured=(), query=query), expected)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("txt=a", "'txt'"),
        ("nested.txt=a", "'nested.txt'"),
        ("text.a=1", "'text.a'"),
        ("many.text=x", "'many.text'"),
        ("texts[0]=x", "'texts'"),
        ("number=x", "'number'"),
        ("number=1_0", "'number'"),
        ("number=%201", "'number'"),
        ("number=٣", "'number'"),
        ("number=1.5", "'number'"),
        ("number=2147483648", "'number'"),
        ("positive=-1", "'positive'"),
        ("number=", "'number'"),
        ("flag=yes", "'flag'"),
        ("flag", "'flag'"),
        ("ratio=1e39", "'ratio'"),
        ("exact=nan", "'exact'"),
        ("data=!", "'data'"),
        ("colour=GREEN", "'colour'"),
        ("number=1&number=2", "'number'"),
        ("texts=a&numbers=1&numbers=x", "'numbers'"),
        ("nested=x", "'nested'"),
        ("many=x", "'many'"),
        ("counts=1", "'counts'"),
        ("counts[a]=x", "'counts[a]'"),
        ("any=x", "'any'"),
        ("one=x&other=1", "'choice'"),
        ("time=yesterday", "'time'"),
        ("wait=5", "'wait'"),
        ("wrapped=x", "'wrapped'"),
        ("object=[1", "'object'"),
        ("text=%ff", "UTF-8"),
        ("&".join(f"texts={number}" for number in range(1001)), "1000"),
    ],
)
def test_query_refusals(binder, query, names):
    with pytest.raises(BadRequest) as caught:
        binder("Query").bind(captured=(), query=query)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ""),
        (b"{}", ""),
        (b' {"text": "x"} ', 'text: "x"'),
        (b'{"bigPositive": "5", "big": -1}', "big_positive: 5 big: -1"),
        (b'{"otherName": "a"}', 'renamed: "a"'),
        (b'{"number": 3e1, "positive": 2.0}', "number: 30 positive: 2"),
        (b'{"big": "9007199254740993"}', "big: 9007199254740993"),
        (b'{"ratio": "1.5", "exact": 2}', "ratio: 1.5 exact: 2"),
        (b'{"exact": "-Infinity"}', "exact: -inf"),
        (b'{"data": "aGk_", "colour": "RED", "colours": [2, "RED"]}', 'data: "hi?" colour: RED colours: [BLUE, RED]'),
        (b'{"texts": [], "counts": {"a": 1}, "flag": true}', 'flag: true counts { key: "a" value: 1 }'),
        (b'{"nestedByNumber": {"-3": {"text": "x"}}}', 'nested_by_number { key: -3 value { text: "x" } }'),
        (b'{"nested": {}, "many": [{"number": 1}, {}]}', "nested {} many { number: 1 } many {}"),
        (b'{"text": null, "nested": null, "texts": null, "maybe": null}', ""),
        (b'{"value": null, "nothing": null}', "value { null_value: NULL_VALUE }"),
        (b'{"one": null, "other": 1}', "other: 1"),
        (b'{"time": "1970-01-01T00:00:01Z", "wait": "2s"}', "time { seconds: 1 } wait { seconds: 2 }"),
        (b'{"mask": "a,bC"}', 'mask { paths: ["a", "b_c"] }'),
        (b'{"wrapped": "7", "wrapped_text": ""}', "wrapped { value: 7 } wrapped_text {}"),
        (b'{"object": {"a": null}}', 'object { fields { key: "a" value { null_value: NULL_VALUE } } }'),
        (
            b'{"any": {"@type": "type.googleapis.com/kinds.v1.Request", "id": "x"}}',
            'any { type_url: "type.googleapis.com/kinds.v1.Request" value: "\\n\\001x" }',
        ),
    ],
)
def test_body(binder, body, expected):
    assert same(binder("Body").bind(captured=(), query="", body=body), expected)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"text":', "line 1, column 9"),
        (b'{\n"text": x}', "line 2, column 9"),
        (b"{} {}", "column 4"),
        (b"\xff", "UTF-8"),
        (b'{"exact": NaN}', "NaN"),
        (b'{"text": "a", "text": "b"}', "'text'"),
        (b'{"big_positive": 1, "bigPositive": 2}', "'bigPositive'"),
        (b"[]", "an object"),
        (b"null", "an object"),
        (b'"text"', "an object"),
        (b'{"txt": 1}', "'txt'"),
        (b'{"nested": {"txt": 1}}', "'nested.txt'"),
        (b'{"many": [{}, {"txt": 1}]}', "'many[1].txt'"),
        (b'{"text": 1}', "'text'"),
        (b'{"text": "\\ud800"}', "'text'"),
        (b'{"number": "x"}', "'number'"),
        (b'{"number": 1.5}', "'number'"),
        (b'{"number": 1e400}', "'number'"),
        (b'{"number": true}', "'number'"),
        (b'{"number": 2147483648}', "'number'"),
        (b'{"maybe": "x"}', "'maybe'"),
        (b'{"other": "x"}', "'other'"),
        (b'{"positive": -1}', "'positive'"),
        (b'{"flag": "true"}', "'flag'"),
        (b'{"flag": 1}', "'flag'"),
        (b'{"ratio": 1e39}', "'ratio'"),
        (b'{"data": "!"}', "'data'"),
        (b'{"colour": "GREEN"}', "'colour'"),
        (b'{"texts": "a"}', "'texts'"),
        (b'{"texts": [null]}', "'texts[0]'"),
        (b'{"numbers": [1, "x"]}', "'numbers[1]'"),
        (b'{"counts": []}', "'counts'"),
        (b'{"counts": {"a": "x"}}', "counts"),
        (b'{"nestedByNumber": {"x": {}}}', "'nestedByNumber'"),
        (b'{"nested": 1}', "'nested'"),
        (b'{"many": [null]}', "'many[0]'"),
        (b'{"one": "a", "other": 1}', "'choice'"),
        (b'{"time": "yesterday"}', "'time'"),
        (b'{"wait": 5}', "'wait'"),
        (b'{"wrapped": "x"}', "'wrapped'"),
        (b'{"any": {"@type": "type.googleapis.com/not.Known"}}', "'any'"),
        (b'{"number": ' + b"1" * 5000 + b"}", "digits"),
        (b"[" * 100_000, "too deeply"),
        (b'{"nested":' * 200 + b"1" + b"}" * 200, "too deeply"),
    ],
)
def test_body_refusals(binder, body, names):
    with pytest.raises(BadRequest) as caught:
        binder("Body").bind(captured=(), query="", body=body)
    assert names in str(caught.value)


def test_the_path_goes_over_the_body(binder):
    message = binder("Whole").bind(captured=("path",), query="", body=b'{"text": "body", "number": 1}')
    assert same(message, 'text: "path" number: 1')


def test_the_path_goes_over_the_query(binder):
    assert same(binder("Part").bind(captured=("path", "t"), query="id=query"), 'id: "path" part { text: "t" }')


def test_the_body_goes_over_the_query(binder):
    message = binder("Part").bind(captured=("i", "t"), query="part.number=1&part.flag=true", body=b'{"number": 2}')
    assert same(message, 'id: "i" part { text: "t" number: 2 }')


def test_the_path_chooses_of_a_oneof(binder):
    assert same(binder("Typed", 1).bind(captured=("x",), query="other=1"), 'one: "x"')


def test_a_body_of_one_field(binder):
    assert same(binder("Part").bind(captured=("i", "t"), query="tags=a"), 'id: "i" tags: "a" part { text: "t" }')
    assert same(binder("Tags").bind(captured=(), query="id=i", body=b'["a", "b"]'), 'id: "i" tags: ["a", "b"]')
    with pytest.raises(BadRequest, match="'tags'"):
        binder("Tags").bind(captured=(), query="", body=b"{}")


def test_a_whole_body_leaves_nothing_to_the_query(binder):
    with pytest.raises(BadRequest, match="'number'"):
        binder("Whole").bind(captured=("x",), query="number=1")


def test_path_variables_have_types(binder):
    assert same(binder("Typed").bind(captured=("-7",), query=""), "number: -7")
    with pytest.raises(BadRequest, match="'number'"):
        binder("Typed").bind(captured=("x",), query="")


def test_raw_bodies(binder):
    raw = binder("Raw")
    message = raw.bind_raw(raw.bind(captured=("i",), query="tags=a"), content_type="text/plain", data=b"\x00")
    assert same(message, 'id: "i" tags: "a" raw { content_type: "text/plain" data: "\\000" }')
    whole = binder("RawPart")
    message = whole.bind_raw(whole.bind(captured=(), query=""), content_type="a/b", data=b"x")
    assert same(message, 'content_type: "a/b" data: "x"')


def test_not_a_number(binder):
    assert math.isnan(binder("Query").bind(captured=(), query="exact=NaN").exact)


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ('get: "/v1/{nothing}"', "'nothing'"),
        ('get: "/v1/{many}"', "'many' is repeated"),
        ('get: "/v1/{inner}"', "'inner' is a message"),
        ('get: "/v1/{many.inner}"', "'many.inner'"),
        ('post: "/v1" body: "inner.many"', "'inner.many'"),
        ('post: "/v1" body: "nothing"', "'nothing'"),
    ],
)
def test_rules_that_do_not_fit(compiled, rule, names):
    proto = f"""syntax = "proto3"; package p; import "google/api/annotations.proto";
    message M {{ repeated string many = 1; M inner = 2; }}
    service S {{ rpc Do(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }} }}"""
    api = load_api(compiled(proto))
    method = api.services[0].methods[0]
    with pytest.raises(ConfigurationError, match=names):
        Binder(method, method.bindings[0], pool=api.pool)


FIELDS = [
    "text",
    "number",
    "big",
    "positive",
    "flag",
    "ratio",
    "exact",
    "data",
    "colour",
    "texts",
    "numbers",
    "counts",
    "nestedByNumber",
    "nested",
    "many",
    "maybe",
    "one",
    "third",
    "time",
    "wait",
    "mask",
    "wrapped",
    "object",
    "value",
    "any",
    "nothing",
    "times",
    "wrapped_data",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*FIELDS, "@type", "1"]), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("field", ["number", "value", "object", "any", "nested", "many", "time"])
@pytest.mark.parametrize(("opened", "closed"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"many":', b"}]")])
def test_any_depth_binds_or_is_refused(binder, field, opened, closed):
    """Also the depths at which JSON can still be decoded, but just so."""
    for depth in range(90, 1100):
        with contextlib.suppress(BadRequest):
            body = b'{"' + field.encode() + b'":' + opened * depth + b"1" + closed * depth + b"}"
            binder("Body").bind(captured=(), query="", body=body)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_any_body_binds_or_is_refused(binder, value):
    with contextlib.suppress(BadRequest):
        binder("Body").bind(captured=(), query="", body=json.dumps(value).encode())


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from([*FIELDS, "nested.many", "counts[a]", "counts[", "object[a]"]), st.text())))
def test_any_query_binds_or_is_refused(binder, parameters):
    with contextlib.suppress(BadRequest):
        binder("Query").bind(captured=(), query=urlencode(parameters, errors="surrogatepass"))
