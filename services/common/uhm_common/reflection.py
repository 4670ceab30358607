"""gRPC server reflection under both of its names, which clients of different ages ask for.

grpcio has v1alpha only. The messages of grpc.reflection.v1 are the same on the wire, so that the same servicer answers;
its file is v1alpha's with another package, so that a client that asks for the service's own description finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health
from grpc_reflection.v1alpha import _async, reflection, reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["REFLECTION_NAMES", "add_reflection"]

_V1ALPHA, _V1 = "grpc.reflection.v1alpha", "grpc.reflection.v1"
REFLECTION_NAMES = (f"{_V1}.ServerReflection", reflection.SERVICE_NAME)


def add_reflection(server: grpc.aio.Server, services: Iterable[str], *, pool: DescriptorPool | None = None) -> None:
    """Serves descriptors of the services, and of health and reflection themselves, from the pool (None: protobuf's)."""
    pool = pool or descriptor_pool.Default()
    _describe_v1(pool)
    servicer = _async.ReflectionServicer([*services, health.SERVICE_NAME, *REFLECTION_NAMES], pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in REFLECTION_NAMES
        )
    )


def _describe_v1(pool: DescriptorPool) -> None:
    """Adds grpc.reflection.v1 to the pool, where it is not there yet."""
    try:
        pool.FindServiceByName(REFLECTION_NAMES[0])
    except KeyError:
        described = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(described)
        described.name = "grpc/reflection/v1/reflection.proto"
        described.ClearField("options")
        v1 = text_format.MessageToString(described).replace(_V1ALPHA, _V1)
        pool.AddSerializedFile(text_format.Parse(v1, descriptor_pb2.FileDescriptorProto()).SerializeToString())
