"""An API made for the tests: every kind of field, every kind of rule."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grpc_tools import protoc

from uhm_gateway.mapping.bind import Binder
from uhm_gateway.mapping.descriptors import Api, Method, load_api
from uhm_gateway.mapping.render import Renderer

if TYPE_CHECKING:
    from collections.abc import Callable

PROTO = """
syntax = "proto3";
// The package's comment.
package kinds.v1;

import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

// The service's comment.
// On two lines.
service Kinds {
  // The method's comment.
  rpc Whole(Everything) returns (Everything) { option (google.api.http) = { post: "/whole/{text}" body: "*" }; }
  rpc Body(Everything) returns (Everything) { option (google.api.http) = { post: "/body" body: "*" }; }
  rpc Part(Request) returns (Request) {
    option (google.api.http) = { patch: "/part/{id}/{part.text}" body: "part" response_body: "part" };
  }
  rpc Tags(Request) returns (Request) {
    option (google.api.http) = { put: "/tags" body: "tags" response_body: "tags" };
  }
  rpc Query(Everything) returns (Everything) { option (google.api.http) = { get: "/query" }; }
  rpc Typed(Everything) returns (Request) {
    option (google.api.http) = {
      get: "/typed/{number}" response_body: "maybe"
      additional_bindings { get: "/of/{one}" }
    };
  }
  rpc When(Request) returns (Everything) {
    option (google.api.http) = { custom { kind: "LIST" path: "/when" } response_body: "time" };
  }
  rpc Raw(Request) returns (google.api.HttpBody) { option (google.api.http) = { post: "/raw/{id}" body: "raw" }; }
  rpc RawPart(google.api.HttpBody) returns (Request) {
    option (google.api.http) = { post: "/raw" body: "*" response_body: "raw" };
  }
}

enum Colour { COLOUR_UNSPECIFIED = 0; RED = 1; BLUE = 2; }

// A message's comment.
message Everything {
  // A field's comment.
  string text = 1;
  int32 number = 2;
  int64 big = 3;
  uint32 positive = 4;
  uint64 big_positive = 5;
  bool flag = 6;
  float ratio = 7;
  double exact = 8;
  bytes data = 9;
  Colour colour = 10;
  repeated string texts = 11;
  repeated int64 numbers = 12;
  repeated Colour colours = 13;
  map<string, int32> counts = 14;
  map<int32, Everything> nested_by_number = 15;
  Everything nested = 16;
  repeated Everything many = 17;
  optional int32 maybe = 18;
  oneof choice { string one = 19; int32 other = 20; Everything third = 21; }
  google.protobuf.Timestamp time = 22;
  google.protobuf.Duration wait = 23;
  google.protobuf.FieldMask mask = 24;
  google.protobuf.Int64Value wrapped = 25;
  google.protobuf.Struct object = 26;
  google.protobuf.Value value = 27;
  google.protobuf.Any any = 28;
  google.protobuf.StringValue wrapped_text = 29;
  google.protobuf.NullValue nothing = 30;
  repeated google.protobuf.Timestamp times = 31;
  string renamed = 32 [json_name = "otherName"];
  google.protobuf.BytesValue wrapped_data = 33;
}

message Request {
  string id = 1;
  Everything part = 2;
  repeated string tags = 3;
  google.api.HttpBody raw = 4;
  optional int32 maybe = 5;
}
"""


def compile_proto(root: Path, proto: str) -> bytes:
    """The descriptor set of one .proto text."""
    (root / "api.proto").write_text(proto)
    googleapis = Path(str(files("google.api").joinpath("annotations.proto"))).parents[2]
    arguments = [
        "protoc",
        f"--proto_path={root}",
        f"--proto_path={googleapis}",
        f"--proto_path={files('grpc_tools').joinpath('_proto')}",
        f"--descriptor_set_out={root / 'api.binpb'}",
        "--include_imports",
        "--include_source_info",
        "api.proto",
    ]
    assert protoc.main(arguments) == 0
    return (root / "api.binpb").read_bytes()


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[str], bytes]:
    """Compiles a .proto text to a descriptor set."""
    return lambda proto: compile_proto(tmp_path, proto)


@pytest.fixture(scope="session")
def descriptor_set(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_proto(tmp_path_factory.mktemp("kinds"), PROTO)


@pytest.fixture(scope="session")
def api(descriptor_set: bytes) -> Api:
    return load_api(descriptor_set)


@pytest.fixture(scope="session")
def method(api: Api) -> Callable[[str], Method]:
    methods = {method.name: method for method in api.services[0].methods}
    return methods.__getitem__


@pytest.fixture(scope="session")
def binder(api: Api, method: Callable[[str], Method]) -> Callable[..., Binder]:
    def make(name: str, at: int = 0) -> Binder:
        return Binder(method(name), method(name).bindings[at], pool=api.pool)

    return make


@pytest.fixture
def renderer(api: Api, method: Callable[[str], Method]) -> Callable[[str], Renderer]:
    return lambda name: Renderer(method(name), method(name).bindings[0], pool=api.pool)
