"""An API as its descriptor set tells it: services, methods, HTTP bindings and comments.

The set is a serialized google.protobuf.FileDescriptorSet, as `protoc --include_imports --include_source_info
--descriptor_set_out` and `buf build` write it. It gets a descriptor pool of its own, so that any API can be served,
whatever is compiled into this process.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from uhm_gateway.errors import ConfigurationError
from uhm_gateway.mapping.comments import comments_of
from uhm_gateway.mapping.template import Template, parse_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["Api", "Binding", "Method", "Service", "load_api", "packaged_descriptor_set"]

# What the gateway serves itself, and the details that statuses carry (google.rpc.ErrorInfo and its like).
_GOOGLES = re.compile(r"google/(protobuf|api|rpc|type)/\w+\.proto")
_OWN_FILES = (health_pb2, reflection_pb2, error_details_pb2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to reach a method through HTTP; `body` and `response_body` as in google.api.HttpRule."""

    http_method: str
    template: Template
    body: str
    response_body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method; `path` is its HTTP/2 path, `/package.Service/Method`."""

    descriptor: MethodDescriptor
    path: str
    input_type: type[Message]
    output_type: type[Message]
    client_streaming: bool
    server_streaming: bool
    bindings: tuple[Binding, ...]
    comment: str

    @property
    def name(self) -> str:
        """Its name inside its service."""
        return self.descriptor.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service and its methods, as declared."""

    full_name: str
    methods: tuple[Method, ...]
    comment: str

    @property
    def short_name(self) -> str:
        """What users call it: `auth` for `uhmalguhm.auth.v1.AuthService`, the name itself where no package tells."""
        *package, name = self.full_name.split(".")
        named = [part for part in package if not (part[0] == "v" and part[1:2].isdigit())]
        return named[-1] if len(named) > 1 else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Everything in a descriptor set; `comments` are by full name."""

    pool: DescriptorPool
    services: tuple[Service, ...]
    comments: Mapping[str, str]


def packaged_descriptor_set() -> bytes:
    """This project's own API, from the generated package."""
    return files("uhmalguhm").joinpath("descriptors.binpb").read_bytes()


def load_api(source: bytes | Path) -> Api:
    """Reads a descriptor set, from bytes or a file.

    Raises ConfigurationError where it cannot be read, lacks an import, or has a rule that does not fit its method.
    """
    descriptor_set = _read(source)
    pool = descriptor_pool.DescriptorPool()
    by_name = {file.name: file for file in descriptor_set.file}
    for name in by_name:
        _add(pool, name, by_name, set())
    for module in _OWN_FILES:
        _add_own(pool, module.DESCRIPTOR.name, by_name)
    comments = {name: text for file in descriptor_set.file for name, text in comments_of(file).items()}
    services = tuple(service for file in descriptor_set.file for service in _services(pool, file, comments))
    return Api(pool=pool, services=services, comments=comments)


def _read(source: bytes | Path) -> descriptor_pb2.FileDescriptorSet:
    name = "The packaged descriptor set" if isinstance(source, bytes) else str(source)
    try:
        descriptor_set = descriptor_pb2.FileDescriptorSet.FromString(
            source if isinstance(source, bytes) else source.read_bytes()
        )
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}.") from error
    except DecodeError as error:
        raise ConfigurationError(
            f"{name} is not a FileDescriptorSet.", hint="`buf build -o FILE.binpb` makes one."
        ) from error
    if not descriptor_set.file:
        raise ConfigurationError(f"{name} is empty.")
    return descriptor_set


def _add(
    pool: DescriptorPool, name: str, by_name: dict[str, descriptor_pb2.FileDescriptorProto], added: set[str]
) -> None:
    """Adds a file after its imports; google's own may be missing in the set, being compiled in here."""
    if name in added or _has(pool, name):
        return
    added.add(name)
    file = by_name.get(name) or _compiled_in(name)
    if file is None:
        raise ConfigurationError(f"The descriptor set lacks {name}.", hint="Make it with --include_imports.")
    for imported in file.dependency:
        _add(pool, imported, by_name, added)
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise ConfigurationError(f"{name} in the descriptor set is not valid: {error}.") from error


def _add_own(pool: DescriptorPool, name: str, by_name: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    try:
        _add(pool, name, by_name, set())
    except ConfigurationError:
        # The set defines the same names in a file of another name; then its own definitions serve.
        return


def _has(pool: DescriptorPool, name: str) -> bool:
    try:
        pool.FindFileByName(name)
    except KeyError:
        return False
    return True


def _compiled_in(name: str) -> descriptor_pb2.FileDescriptorProto | None:
    """Google's own files, and what is imported here: a generated module puts its file into the default pool."""
    try:
        if _GOOGLES.fullmatch(name):
            importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        serialized = descriptor_pool.Default().FindFileByName(name).serialized_pb
    except (ImportError, KeyError):
        return None
    return descriptor_pb2.FileDescriptorProto.FromString(serialized)


def _services(
    pool: DescriptorPool, file: descriptor_pb2.FileDescriptorProto, comments: Mapping[str, str]
) -> Iterator[Service]:
    for declared in file.service:
        full_name = f"{file.package}.{declared.name}" if file.package else declared.name
        service = pool.FindServiceByName(full_name)
        yield Service(
            full_name=full_name,
            methods=tuple(_method(service, method, comments) for method in declared.method),
            comment=comments.get(full_name, ""),
        )


def _method(
    service: ServiceDescriptor, declared: descriptor_pb2.MethodDescriptorProto, comments: Mapping[str, str]
) -> Method:
    descriptor = service.methods_by_name[declared.name]
    # Options are read from the set's own message, not from the pool's descriptor: extensions live in the default pool.
    rule = declared.options.Extensions[annotations_pb2.http]
    try:
        bindings = tuple(_bindings(rule))
    except ConfigurationError as error:
        raise ConfigurationError(f"{descriptor.full_name}: {error}") from error
    return Method(
        descriptor=descriptor,
        path=f"/{service.full_name}/{declared.name}",
        input_type=message_factory.GetMessageClass(descriptor.input_type),
        output_type=message_factory.GetMessageClass(descriptor.output_type),
        client_streaming=declared.client_streaming,
        server_streaming=declared.server_streaming,
        bindings=bindings,
        comment=comments.get(descriptor.full_name, ""),
    )


def _bindings(rule: http_pb2.HttpRule) -> Iterator[Binding]:
    for each in (rule, *rule.additional_bindings):
        if each is not rule and each.additional_bindings:
            raise ConfigurationError("An additional binding has additional bindings itself.")
        match each.WhichOneof("pattern"):
            case None:
                continue
            case "custom":
                http_method, path = each.custom.kind, each.custom.path
                if not http_method:
                    raise ConfigurationError(f"The custom pattern of {path!r} has no kind, which is its HTTP method.")
            case kind:
                http_method, path = kind.upper(), getattr(each, kind)
        yield Binding(
            http_method=http_method, template=parse_template(path), body=each.body, response_body=each.response_body
        )
