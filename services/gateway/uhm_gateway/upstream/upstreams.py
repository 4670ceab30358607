"""The services behind the gateway: where each is, one channel for each address, and whether it is well.

A call that an upstream never answered fails with UNAVAILABLE in gRPC's words ("failed to connect to all addresses;
..."), which tell a user nothing; `explained` puts the service's name there instead. Health is asked for when somebody
wants to know and the last answer is older than a second.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from uhm_common.logs import get_logger
from uhm_common.tls import open_channel
from uhm_gateway.errors import ConfigurationError
from uhm_gateway.upstream.lane import Lane
from uhm_gateway.upstream.laneconnection import KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS
from uhm_gateway.upstream.outcome import is_unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from uhm_common.tls import ClientTls
    from uhm_gateway.mapping.descriptors import Api, Service

__all__ = ["Upstream", "Upstreams", "channel_options", "server_options"]

log = get_logger()

HEALTH_SECONDS = 1.0
HEALTH_TIMEOUT_SECONDS = 2.0


def channel_options(*, message_limit: int, keepalive_seconds: float = KEEPALIVE_SECONDS) -> list[tuple[str, int]]:
    """Options of channels to upstreams, which are near and restart, so that reconnecting is quick.

    (`min_reconnect_backoff_ms` is in truth how long one attempt to connect may take.)
    """
    return [
        *_both_sides(message_limit, keepalive_seconds),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 900),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_http_proxy", 0),
    ]


def server_options(*, message_limit: int) -> list[tuple[str, int]]:
    """Options of the gRPC port; clients may ping as often as every 10 s, also between calls."""
    return [
        *_both_sides(message_limit, KEEPALIVE_SECONDS),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _both_sides(message_limit: int, keepalive_seconds: float) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", message_limit),
        ("grpc.max_send_message_length", message_limit),
        ("grpc.keepalive_time_ms", round(keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A service, where it is, and the ways to it."""

    service: Service
    address: str
    channel: grpc.aio.Channel
    lane: Lane | None = None

    def unary_unary(self, path: str, **codec: Any) -> Callable[..., Any]:
        """The channel's multi-callable, before which small calls take the lane where there is one."""
        by_channel: Callable[..., Any] = self.channel.unary_unary(path, **codec)
        return by_channel if self.lane is None else self.lane.unary_unary(path, **codec, otherwise=by_channel)

    def explained(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error, or one that names the service where nothing answered."""
        if not is_unanswered(error):
            return error
        log.warning("upstream.unanswered", service=self.service.full_name, address=self.address, cause=error.details())
        return grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(),
            details=f"{self.service.short_name} is not answering ({self.service.full_name}). Try again in a moment.",
            debug_error_string=None,
        )


class Upstreams:
    """The routed services of an API, as a context manager that owns their channels."""

    def __init__(
        self,
        api: Api,
        routes: Mapping[str, str],
        *,
        message_limit: int,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        tls: ClientTls | None = None,
    ) -> None:
        """`routes` are addresses by full service name. Raises ConfigurationError where one is not in the API."""
        known = {service.full_name: service for service in api.services}
        for name in routes:
            if name not in known:
                raise ConfigurationError(
                    f"The descriptor set has no service {name!r}.", hint=f"It has {', '.join(sorted(known)) or 'none'}."
                )
        self._routes = {known[name]: address for name, address in routes.items()}
        self._options = channel_options(message_limit=message_limit, keepalive_seconds=keepalive_seconds)
        self._keepalive_seconds = keepalive_seconds
        self._tls = tls
        self._message_limit = message_limit
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._lanes: dict[str, Lane] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._health = _HealthCache()

    async def __aenter__(self) -> Self:
        for service, address in self._routes.items():
            if address not in self._channels:
                self._channels[address] = open_channel(address, tls=self._tls, options=self._options)
                if self._tls is None:
                    self._lanes[address] = Lane(
                        address, message_limit=self._message_limit, keepalive_seconds=self._keepalive_seconds
                    )
            self._upstreams[service.full_name] = Upstream(
                service=service, address=address, channel=self._channels[address], lane=self._lanes.get(address)
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        for lane in self._lanes.values():
            await lane.close()
        for channel in self._channels.values():
            await channel.close(None)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._upstreams.values())

    async def health(self) -> Mapping[str, bool]:
        """Whether each service is well, by full name; answers at most a second old."""
        return await self._health.of(tuple(self._upstreams.values()))


class _HealthCache:
    """The last answers of all upstreams; concurrent askers wait for the same round."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._answers: dict[str, bool] = {}

    async def of(self, upstreams: tuple[Upstream, ...]) -> Mapping[str, bool]:
        async with self._lock:
            if time.monotonic() - self._asked > HEALTH_SECONDS:
                answers = await asyncio.gather(*(_is_healthy(upstream) for upstream in upstreams))
                names = (upstream.service.full_name for upstream in upstreams)
                self._answers = dict(zip(names, answers, strict=True))
                self._asked = time.monotonic()
            return self._answers


async def _is_healthy(upstream: Upstream) -> bool:
    """What its grpc.health.v1 service says; one without that service, or not listed there, is well if it answers."""
    stub = health_pb2_grpc.HealthStub(upstream.channel)
    request = health_pb2.HealthCheckRequest(service=upstream.service.full_name)
    try:
        answer = await stub.Check(request, timeout=HEALTH_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND}
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
