"""The API of the vectors, compiled, and its mapping as the gateway makes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from grpc_tools import protoc

from uhm_gateway.mapping.bind import Binder
from uhm_gateway.mapping.descriptors import Api, Binding, Method, load_api
from uhm_gateway.mapping.match import Router
from uhm_gateway.mapping.render import Renderer

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["PROTOS", "Endpoint", "Mapping", "compiled", "mapping"]

PROTOS = Path(__file__).parent / "protos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One binding and what the gateway makes of it."""

    method: Method
    binding: Binding
    binder: Binder
    renderer: Renderer


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The whole mapping of an API, without servers."""

    api: Api
    endpoints: tuple[Endpoint, ...]
    router: Router[Endpoint]

    def bind(self, method: str, target: str, body: bytes = b"", *, content_type: str = "") -> tuple[Endpoint, Message]:
        """Template, match, bind: the binding that a request means, and the message. Raises UhmError."""
        path, _, query = target.partition("?")
        found = self.router.match(method, path)
        binder = found.target.binder
        if binder.raw_body_field is None:
            taken = body if binder.takes_body else b""
            return found.target, binder.bind(captured=found.captured, query=query, body=taken)
        message = binder.bind(captured=found.captured, query=query)
        return found.target, binder.bind_raw(message, content_type=content_type, data=body)

    def endpoint(self, method: str, path: str) -> Endpoint:
        """The binding of exactly that rule: `POST`, `/v1/body/{text}`."""
        rule = (method, path)
        return next(each for each in self.endpoints if (each.binding.http_method, each.binding.template.text) == rule)

    def method(self, name: str) -> Method:
        """A method by its short name."""
        return next(each.method for each in self.endpoints if each.method.name == name)


@cache
def compiled() -> bytes:
    """The descriptor set, as `protoc` writes it."""
    google = Path(str(files("google.api").joinpath("annotations.proto"))).parents[2]
    with TemporaryDirectory(prefix="conformance-") as directory:
        output = Path(directory) / "api.binpb"
        arguments = [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={google}",
            f"--proto_path={files('grpc_tools').joinpath('_proto')}",
            f"--descriptor_set_out={output}",
            "--include_imports",
            "conformance.proto",
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc failed.")
        return output.read_bytes()


@cache
def mapping() -> Mapping:
    """Everything compiled and wired, once."""
    api = load_api(compiled())
    endpoints = tuple(
        Endpoint(
            method=method,
            binding=binding,
            binder=Binder(method, binding, pool=api.pool),
            renderer=Renderer(method, binding, pool=api.pool),
        )
        for service in api.services
        for method in service.methods
        for binding in method.bindings
    )
    router: Router[Endpoint] = Router()
    for endpoint in endpoints:
        router.add(endpoint.binding.http_method, endpoint.binding.template, endpoint)
    return Mapping(api=api, endpoints=endpoints, router=router)
