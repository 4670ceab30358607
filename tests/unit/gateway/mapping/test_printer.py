"""The printers against google.protobuf.json_format, whose values they must print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format

from uhm_gateway.mapping.printer import Printers

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm_gateway.mapping.descriptors import Api, Method

EXAMPLES: list[dict[str, Any]] = [
    {},
    {"text": 'ä"\\', "number": -1, "big": str(-(2**63)), "positive": 2**32 - 1, "big_positive": str(2**64 - 1)},
    {"flag": True, "ratio": 0.1, "exact": 0.1, "data": "AP8=", "colour": "RED"},
    {"ratio": "NaN", "exact": "-Infinity"},
    {"ratio": "Infinity", "exact": 1e300},
    {"colour": 7, "colours": ["RED", "BLUE", 9]},
    {"texts": ["a", ""], "numbers": ["1", "-2"], "counts": {"a": 1, "": 0}},
    {"nested_by_number": {"1": {"text": "x"}, "-2": {}}},
    {"nested": {"nested": {"many": [{"maybe": 0}, {"one": ""}]}}},
    {"maybe": 0, "other": 0},
    {"third": {"big": "5"}, "nothing": None},
    {"time": "2026-01-02T03:04:05.000600Z", "wait": "1.5s", "mask": "a,bC", "wrapped": "7", "wrapped_text": ""},
    {"object": {"a": [1, None, {"b": True}]}, "value": None, "wrapped_data": "AA=="},
    {"any": {"@type": "type.googleapis.com/kinds.v1.Everything", "text": "in any"}, "times": ["1970-01-01T00:00:00Z"]},
    {"renamed": "x"},
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_same_values_as_json_format(api: Api, method: Callable[[str], Method], example: dict[str, Any]) -> None:
    message = json_format.ParseDict(example, method("Body").input_type(), descriptor_pool=api.pool)
    expected = json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=api.pool,
    )
    printed = Printers(api.pool).of(method("Body").input_type.DESCRIPTOR)(message)
    assert json.dumps(json.loads(printed), sort_keys=True) == json.dumps(expected, sort_keys=True)


def test_fields_come_as_they_are_declared(api: Api, method: Callable[[str], Method]) -> None:
    made = method("Typed").output_type(tags=["a"], id="b")
    assert Printers(api.pool).of(made.DESCRIPTOR)(made) == '{"id":"b","tags":["a"]}'
