"""JSON texts, decoded strictly."""

import math

import pytest

from uhm_gateway.errors import BadRequest
from uhm_gateway.mapping.jsontext import Real, decode, loads


def test_values():
    assert loads(b' {"a": [1, "x", true, null, {}]} ') == {"a": [1, "x", True, None, {}]}


@pytest.mark.parametrize("text", ["1.5", "1e3", "9007199254740993.0", "1e400"])
def test_a_real_keeps_its_text(text):
    number = decode(text)
    assert isinstance(number, Real)
    assert (number, number.text) == (float(text), text)


def test_an_integer_is_one():
    assert type(decode("9007199254740993")) is int
    assert math.isinf(decode("-1e400"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "key 'a' is there twice"),
        (b'[{"a": {"x": 1, "x": 1}}]', "key 'x' is there twice"),
        (b"[NaN]", 'NaN is only known as a string, "NaN"'),
        (b"-Infinity", "-Infinity is only known as a string"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "an integer has too many digits"),
        (b'{"a":\n 1,}', "line 2, column"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"", "line 1, column 1"),
    ],
)
def test_refusals(text, problem):
    with pytest.raises(BadRequest) as caught:
        loads(text)
    assert problem in str(caught.value)
    with pytest.raises(ValueError):  # noqa: PT011 - what the message says is tested above
        decode(text.decode("latin-1") if text != b'"\xff"' else "")
