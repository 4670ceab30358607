"""What the gRPC port tells about the health of the services behind it (grpc.health.v1)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from uhm_common.reflection import REFLECTION_NAMES

if TYPE_CHECKING:
    from uhm_gateway.upstream.upstreams import Upstreams

__all__ = ["UpstreamHealth"]

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

    async def List(self, _request: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        """Answers the state of the whole and of each service."""
        names = ("", *await self._upstreams.health())
        return health_pb2.HealthListResponse(statuses={name: Status(status=await self._state(name)) for name in names})

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
        if service in {health.SERVICE_NAME, *REFLECTION_NAMES}:
            return int(Status.NOT_SERVING if self._stopping else Status.SERVING)
        if service and service not in healthy:
            return int(Status.SERVICE_UNKNOWN)
        serving = healthy[service] if service else all(healthy.values())
        return int(Status.SERVING if serving and not self._stopping else Status.NOT_SERVING)
