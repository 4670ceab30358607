"""What the gateway is told from outside: `UHM_*` in the environment, under what the command line says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from uhm_common.settings import Address, CommonSettings
from uhm_gateway.http.metadata import Allowed
from uhm_gateway.limits.admission import Capacity
from uhm_gateway.limits.clients import Network, ProxyHeader, TrustedProxies
from uhm_gateway.limits.rate import Rate
from uhm_gateway.rest.transcoder import Policy
from uhm_gateway.server.front import Cors
from uhm_gateway.server.slow_clients import ClientLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GatewaySettings"]

MIB = 1024 * 1024


class GatewaySettings(CommonSettings):
    """Settings of the gateway; `routes` as JSON, `{"package.Service": "host:port"}`."""

    host: str = Field(default="127.0.0.1", description="Both ports listen here; loopback unless told otherwise.")
    rest_port: int = Field(default=5000, ge=0, le=65535)
    grpc_port: int = Field(default=50051, ge=0, le=65535)
    descriptor_set: Path | None = Field(default=None, description="None: this project's own API.")
    routes: dict[str, Address] = Field(default_factory=dict, description="Over the default routes, or instead of them.")
    body_limit: int = Field(default=8 * MIB, gt=0, description="Bytes of a request body that is held in memory.")
    upload_limit: int = Field(default=16 * 1024 * MIB, gt=0, description="Bytes of a body that is passed on in pieces.")
    message_limit: int = Field(default=16 * MIB, gt=0, description="Bytes of one gRPC message, either way.")
    unary_timeout_seconds: float = Field(
        default=600, gt=0, description="The deadline of a unary REST call whose client sets none by Grpc-Timeout."
    )
    rate_per_address: float = Field(
        default=1000, ge=0, description="Requests a second from one address, an IPv6 network of /64; 0 for any number."
    )
    rate_per_user: float = Field(
        default=500, ge=0, description="Requests a second of one user, whose token is verified; 0 for any number."
    )
    burst_seconds: float = Field(
        default=2, gt=0, description="For how many seconds' worth a client may ask at once after a pause."
    )
    max_unary_calls: int = Field(default=1000, gt=0, description="Unary calls under way at a time; more are refused.")
    max_streams: int = Field(default=1000, gt=0, description="Streaming calls under way at a time; more are refused.")
    caller_share: float = Field(
        default=0.5, gt=0, le=1, description="Which part of the two above one user, or one address, may have."
    )
    service_share: float = Field(
        default=0.7, gt=0, le=1, description="Which part one service may have, where there are several."
    )
    max_connections: int = Field(
        default=4096, gt=0, description="HTTP connections at a time, not gRPC's; more get 503."
    )
    target_limit: int = Field(default=8192, gt=0, description="Bytes of a path with its query; more is answered 414.")
    head_limit: int = Field(default=32 * 1024, gt=0, description="Bytes of a request's head; more is answered 431.")
    max_headers: int = Field(default=100, gt=0, description="Headers of a request; more is answered 431.")
    head_timeout_seconds: float = Field(
        default=15, gt=0, description="How long a request's head, or a new connection's first, may take; then 408."
    )
    body_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="How long a request's body may pause, or, unless it is a stream of unknown length, fall below 512"
        " bytes a second; then 408.",
    )
    write_timeout_seconds: float = Field(
        default=60, gt=0, description="How long a client may read nothing of its answer; then its connection is closed."
    )
    keep_alive_seconds: int = Field(default=60, gt=0, description="How long an HTTP connection may wait for a request.")
    grpc_streams_per_connection: int = Field(
        default=256, gt=0, description="Calls at a time through one gRPC connection; clients queue more by themselves."
    )
    grpc_connection_idle_seconds: float = Field(
        default=900, gt=0, description="After how long without a call a gRPC connection is closed."
    )
    grpc_connection_age_seconds: float | None = Field(
        default=None, gt=0, description="When a gRPC connection is asked to end, for balancers' sake; None: never."
    )
    services_keepalive_seconds: float | None = Field(
        default=None,
        ge=10,
        description="After how long a silence a service with calls under way is asked whether it is there. None: 30 for"
        " this project's own services; 300 for others, which by default end connections that ask more often.",
    )
    drain_seconds: float = Field(default=3.0, ge=0, description="How long running calls may go on after SIGTERM.")
    allowed_metadata: tuple[str, ...] = Field(
        default=(), description="Keys that clients may set as Grpc-Metadata-KEY; one that ends in * is a beginning."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Addresses or networks whose word about a client's address is taken."
    )
    proxy_header: ProxyHeader = Field(default="x-forwarded-for", description="In which trusted proxies say it.")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Origins whose pages may call the API, such as https://console.example; * for any."
    )
    cors_credentials: bool = Field(default=False, description="Whether such pages may send what the browser keeps.")
    cors_max_age: int = Field(default=600, ge=0, description="For how many seconds browsers may keep the permission.")
    cors_exposed_headers: tuple[str, ...] = Field(default=(), description="More that such pages may read.")

    @model_validator(mode="after")
    def _credentials_have_an_origin(self) -> Self:
        if self.cors_credentials and "*" in self.cors_origins:
            raise ValueError("UHM_CORS_CREDENTIALS needs origins that are named, not *")
        return self

    @property
    def keepalive_seconds(self) -> float:
        """After how long a silence services are asked whether they are there."""
        return self.services_keepalive_seconds or (30 if self.descriptor_set is None else 300)

    @property
    def policy(self) -> Policy:
        """What of a client is believed, and what it may."""
        return Policy(
            metadata=Allowed.of(self.allowed_metadata),
            proxies=TrustedProxies(networks=self.trusted_proxies, header=self.proxy_header),
            origins=self.cors_origins,
        )

    @property
    def capacity(self) -> Capacity:
        """How often, and how much at a time, may be asked."""
        rates = (self.rate_per_address, self.rate_per_user)
        address, user = (Rate(per_second=rate, burst=math.ceil(rate * self.burst_seconds)) for rate in rates)
        return Capacity(
            address=address,
            user=user,
            unary=self.max_unary_calls,
            streams=self.max_streams,
            service_share=self.service_share if len(self.all_routes()) > 1 else 1,
            caller_share=self.caller_share,
        )

    @property
    def client_limits(self) -> ClientLimits:
        """What one HTTP connection may take, and how long."""
        return ClientLimits(
            connections=self.max_connections,
            target_bytes=self.target_limit,
            head_bytes=self.head_limit,
            headers=self.max_headers,
            head_seconds=self.head_timeout_seconds,
            body_seconds=self.body_timeout_seconds,
            write_seconds=self.write_timeout_seconds,
        )

    @property
    def grpc_limits(self) -> list[tuple[str, int]]:
        """The same for gRPC connections, as options of the server; two pings too many close one."""
        options = [
            ("grpc.max_concurrent_streams", self.grpc_streams_per_connection),
            ("grpc.max_metadata_size", self.head_limit),
            ("grpc.absolute_max_metadata_size", 2 * self.head_limit),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.server_handshake_timeout_ms", round(self.head_timeout_seconds * 1000)),
            ("grpc.max_connection_idle_ms", round(self.grpc_connection_idle_seconds * 1000)),
        ]
        if self.grpc_connection_age_seconds is not None:
            options.append(("grpc.max_connection_age_ms", round(self.grpc_connection_age_seconds * 1000)))
        return options

    @property
    def cors(self) -> Cors | None:
        """What pages of other origins may do; None: nothing."""
        if not self.cors_origins:
            return None
        return Cors(
            origins=self.cors_origins,
            credentials=self.cors_credentials,
            max_age=self.cors_max_age,
            metadata=self.allowed_metadata,
            shown=self.cors_exposed_headers,
        )

    def all_routes(self) -> Mapping[str, str]:
        """Addresses by service: those set, and for this project's own API its services' usual places.

        The documentation shows the services in this order.
        """
        if self.descriptor_set is not None:
            return self.routes
        return {
            "uhmalguhm.auth.v1.AuthService": self.auth_address,
            "uhmalguhm.builder.v1.ImageService": self.builder_address,
            "uhmalguhm.machines.v1.MachineService": self.machines_address,
            "uhmalguhm.builder.v1.StorageService": self.builder_address,
            "uhmalguhm.builder.v1.RegistryService": self.builder_address,
            "uhmalguhm.auth.v1.ApiKeyService": self.auth_address,
            "uhmalguhm.auth.v1.UserService": self.auth_address,
            "uhmalguhm.auth.v1.AuditService": self.auth_address,
            **self.routes,
        }
