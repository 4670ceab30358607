"""An API as its descriptor set tells it."""

import pytest
from google.protobuf import descriptor_pb2

from uhm_gateway.errors import ConfigurationError
from uhm_gateway.mapping.descriptors import load_api, packaged_descriptor_set


def test_services_methods_and_comments(api):
    (service,) = api.services
    assert (service.full_name, service.comment) == ("kinds.v1.Kinds", "The service's comment.\nOn two lines.")
    assert (service.methods[0].path, service.methods[0].comment) == ("/kinds.v1.Kinds/Whole", "The method's comment.")
    assert api.comments["kinds.v1"] == "The package's comment."
    assert api.comments["kinds.v1.Everything"] == "A message's comment."
    assert api.comments["kinds.v1.Everything.text"] == "A field's comment."


def test_bindings(method):
    typed = [(binding.http_method, binding.template.text) for binding in method("Typed").bindings]
    assert typed == [("GET", "/typed/{number}"), ("GET", "/of/{one}")]
    (when,) = method("When").bindings
    assert (when.http_method, when.body, when.response_body) == ("LIST", "", "time")


def test_our_own_api_loads():
    api = load_api(packaged_descriptor_set())
    assert {"auth", "builder", "machines"} <= {service.short_name for service in api.services}


@pytest.mark.parametrize(
    ("package", "short"),
    [("", "S"), ("p", "S"), ("shop.v1", "S"), ("shop.orders.v1", "orders"), ("a.b.c.v2beta1", "c")],
)
def test_short_names(compiled, package, short):
    declared = f"package {package};" if package else ""
    proto = f'syntax = "proto3"; {declared} message M {{}} service S {{ rpc Do(M) returns (M); }}'
    assert load_api(compiled(proto)).services[0].short_name == short


def test_files_in_any_order_and_without_googles_own(descriptor_set):
    whole = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    kept = [file for file in reversed(whole.file) if not file.name.startswith("google/protobuf/")]
    api = load_api(descriptor_pb2.FileDescriptorSet(file=kept).SerializeToString())
    assert [service.full_name for service in api.services] == ["kinds.v1.Kinds"]


def test_a_missing_import_is_named(descriptor_set):
    whole = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    whole.file[-1].dependency.append("shop/missing.proto")
    with pytest.raises(ConfigurationError, match=r"shop/missing\.proto"):
        load_api(whole.SerializeToString())


def test_a_malformed_template_names_its_method(compiled):
    proto = """syntax = "proto3"; package p; import "google/api/annotations.proto"; message M {}
    service S { rpc Do(M) returns (M) { option (google.api.http) = { get: "/a/{" }; } }"""
    with pytest.raises(ConfigurationError, match=r"p\.S\.Do: .* position 4"):
        load_api(compiled(proto))


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ('get: "/a" additional_bindings { get: "/b" additional_bindings { get: "/c" } }', "additional bindings itself"),
        ('get: "/a" additional_bindings { get: "b" }', "begins with"),
        ('custom { path: "/a" }', "has no kind"),
        ('get: ""', "begins with"),
    ],
)
def test_rules_that_are_none(compiled, rule, problem):
    proto = f"""syntax = "proto3"; package p; import "google/api/annotations.proto"; message M {{}}
    service S {{ rpc Do(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }} }}"""
    with pytest.raises(ConfigurationError, match=rf"p\.S\.Do: .*{problem}"):
        load_api(compiled(proto))


@pytest.mark.parametrize(("content", "problem"), [(b"\xff\xff", "not a FileDescriptorSet"), (b"", "empty")])
def test_files_that_are_no_descriptor_sets(tmp_path, content, problem):
    path = tmp_path / "set.binpb"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=problem):
        load_api(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_api(tmp_path / "none")
