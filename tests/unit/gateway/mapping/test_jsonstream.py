"""Streams of JSON values."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uhm_gateway.errors import BodyTooLarge
from uhm_gateway.mapping.jsonstream import JsonSplitter


def _containers(children):
    return st.lists(children) | st.dictionaries(st.text(), children)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), _containers, max_leaves=5)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4)


def split(stream, size):
    splitter = JsonSplitter(limit=1 << 20)
    values = [value for at in range(0, len(stream), size) for value in splitter.feed(stream[at : at + size])]
    return [*values, rest] if (rest := splitter.close()) else values


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("stream", "values"),
    [
        (b"", []),
        (b" \n\n ", []),
        (b"{}", [b"{}"]),
        (b"{}\n{}\n", [b"{}", b"{}"]),
        (b'{"a":1}{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'{\n "a": [1,\n 2]\n}\n{}', [b'{\n "a": [1,\n 2]\n}', b"{}"]),
        (b'{"a":"}\\"{"}{}', [b'{"a":"}\\"{"}', b"{}"]),
        (b'{"a":"\\\\"}{}', [b'{"a":"\\\\"}', b"{}"]),
        (b"nonsense\n{}", [b"nonsense", b"{}"]),
        (b'{"cut', [b'{"cut']),
        (b"}\n{}", [b"}", b"{}"]),
    ],
)
def test_cuts(stream, values, size):
    assert split(stream, size) == values


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4),
    st.integers(1, 64),
    st.sampled_from(["", "\n", " ", "\r\n"]),
)
def test_any_objects_come_out_as_they_went_in(objects, size, between):
    stream = between.join(json.dumps(value, ensure_ascii=False) for value in objects).encode()
    assert [json.loads(value) for value in split(stream, size)] == objects


def test_one_value_is_bounded():
    splitter = JsonSplitter(limit=10)
    assert list(splitter.feed(b'{"a":1}' * 10)) == [b'{"a":1}'] * 10
    with pytest.raises(BodyTooLarge):
        list(splitter.feed(b'{"a":"' + b"x" * 10))
