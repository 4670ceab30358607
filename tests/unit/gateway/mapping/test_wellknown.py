"""The well-known types whose JSON form is their own."""

import pytest
from google.protobuf import duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from uhm_gateway.mapping.wellknown import MAX_DEPTH, set_from_json, set_from_string


@given(st.integers(-62135596800, 253402300799), st.integers(0, 999_999_999))
def test_every_timestamp_is_read_as_it_is_written(seconds, nanos):
    written = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
    read = timestamp_pb2.Timestamp()
    set_from_string(read, written.ToJsonString())
    assert read == written


@given(st.integers(-315576000000, 315576000000), st.integers(0, 999_999_999))
def test_every_duration_is_read_as_it_is_written(seconds, nanos):
    written = duration_pb2.Duration(seconds=seconds, nanos=nanos if seconds > 0 else -nanos)
    read = duration_pb2.Duration()
    set_from_string(read, written.ToJsonString())
    assert read == written


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,bC.dE", ["a", "b_c.d_e"]),
        ("b_c,dE", ["b_c", "d_e"]),
        ("*", ["*"]),
        ("a.*.b", ["a.*.b"]),
    ],
)
def test_masks(text, paths):
    mask = field_mask_pb2.FieldMask()
    set_from_string(mask, text)
    assert list(mask.paths) == paths


@pytest.mark.parametrize("text", [",", "a,", "a,,b", "a b", "a.", ".a", "1a", "a-b", "é", "a**"])
def test_what_is_no_mask(text):
    with pytest.raises(ValueError):  # noqa: PT011 - it is the caller who says what is wrong
        set_from_string(field_mask_pb2.FieldMask(), text)


@pytest.mark.parametrize(("levels", "fits"), [(49, True), (50, False)])
def test_what_is_taken_can_be_parsed(levels, fits):
    """Each list is two messages: the Value that it is, and the ListValue."""
    value = None
    for _ in range(levels):
        value = [value]
    message = struct_pb2.Value()
    if not fits:
        with pytest.raises(RecursionError):
            set_from_json(message, value)
        return
    set_from_json(message, value)
    assert struct_pb2.Value.FromString(message.SerializeToString()) == message
    assert MAX_DEPTH == 100


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (struct_pb2.Struct, []),
        (struct_pb2.Struct, None),
        (struct_pb2.ListValue, {}),
        (struct_pb2.Value, float("inf")),
        (struct_pb2.Value, 10**400),
        (struct_pb2.Value, "\ud800"),
        (struct_pb2.Struct, {"\ud800": 1}),
    ],
)
def test_what_is_no_value(kind, value):
    with pytest.raises(ValueError):  # noqa: PT011 - it is the caller who says what is wrong
        set_from_json(kind(), value)
