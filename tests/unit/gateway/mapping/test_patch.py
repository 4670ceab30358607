"""The field mask of a PATCH that does not give one."""

import pytest

from uhm_gateway.mapping.descriptors import load_api
from uhm_gateway.mapping.patch import mask_field, named_paths

PROTO = """syntax = "proto3"; package p;
import "google/protobuf/field_mask.proto"; import "google/protobuf/struct.proto";
message Thing {
  string name = 1; int32 shelf_count = 2; Thing inner = 3; repeated Thing many = 4; map<string, Thing> by_name = 5;
  google.protobuf.Struct object = 6;
}
message None { Thing thing = 1; repeated google.protobuf.FieldMask masks = 2; }
message One { google.protobuf.FieldMask paths = 1; }
message Two { google.protobuf.FieldMask read_mask = 1; google.protobuf.FieldMask update_mask = 2; }
message Others { google.protobuf.FieldMask read_mask = 1; google.protobuf.FieldMask write_mask = 2; }
"""


@pytest.fixture
def type_named(compiled):
    return load_api(compiled(PROTO)).pool.FindMessageTypeByName


@pytest.mark.parametrize(
    ("request_type", "name"), [("p.None", None), ("p.One", "paths"), ("p.Two", "update_mask"), ("p.Others", None)]
)
def test_the_field_that_is_the_mask(type_named, request_type, name):
    field = mask_field(type_named(request_type))
    assert (field.name if field else None) == name


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (None, []),
        ({}, []),
        ({"name": "x"}, ["name"]),
        ({"shelfCount": 0, "name": None}, ["name", "shelf_count"]),
        ({"inner": {"inner": {"shelf_count": 1}, "name": ""}}, ["inner.inner.shelf_count", "inner.name"]),
        ({"inner": {}}, ["inner"]),
        ({"inner": None}, ["inner"]),
        (
            {"many": [{"name": "x"}], "by_name": {"a": {"name": "x"}}, "object": {"a": {}}},
            ["by_name", "many", "object"],
        ),
    ],
)
def test_the_paths_that_a_body_names(type_named, value, paths):
    assert named_paths(value, type_named("p.Thing")) == paths
