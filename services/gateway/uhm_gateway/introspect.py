"""What the gRPC port tells about itself: health by service (grpc.health.v1), and reflection over the API.

Reflection answers under both of its names, grpc.reflection.v1 and v1alpha: their messages are the same on the wire.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async, reflection, reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor_pool import DescriptorPool

    from uhm_gateway.upstreams import Upstreams

__all__ = ["UpstreamHealth", "add_reflection"]

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
WATCH_SECONDS = 1.0

Status = health_pb2.HealthCheckResponse


class UpstreamHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Each service is as well as its upstream says; the whole, "", when all are."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._stopping = False

    def stop(self) -> None:
        """From now on nothing is serving, so that balancers go elsewhere."""
        self._stopping = True

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        """Answers one service's state; NOT_FOUND for one that is not served here."""
        state = await self._state(request.service)
        if state == Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.service!r} is not served here.")
        return Status(status=state)

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        """Streams a service's state, now and at every change."""
        told = None
        while True:
            state = await self._state(request.service)
            if state != told:
                await context.write(Status(status=state))
                told = state
            await asyncio.sleep(WATCH_SECONDS)

    async def _state(self, service: str) -> int:
        healthy = await self._upstreams.health()
        if service in {health.SERVICE_NAME, reflection.SERVICE_NAME}:
            return int(Status.SERVING)
        if service and service not in healthy:
            return int(Status.SERVICE_UNKNOWN)
        serving = healthy[service] if service else all(healthy.values())
        return int(Status.SERVING if serving and not self._stopping else Status.NOT_SERVING)


def add_reflection(server: grpc.aio.Server, services: Iterable[str], *, pool: DescriptorPool) -> None:
    """Serves descriptors of the services, and of health and reflection themselves, from the pool."""
    names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server, pool=pool)
    servicer = _async.ReflectionServicer(names, pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(REFLECTION_V1, methods),))
