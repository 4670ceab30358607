"""What the gateway is told from outside: `UHM_*` in the environment, under what the command line says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from uhm_common.settings import Address, CommonSettings

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
    drain_seconds: float = Field(default=3.0, ge=0, description="How long running calls may go on after SIGTERM.")

    def all_routes(self) -> Mapping[str, str]:
        """Addresses by service: those set, and for this project's own API its services' usual places."""
        if self.descriptor_set is not None:
            return self.routes
        return {
            "uhmalguhm.auth.v1.AuthService": self.auth_address,
            "uhmalguhm.builder.v1.ImageService": self.builder_address,
            "uhmalguhm.builder.v1.RegistryService": self.builder_address,
            "uhmalguhm.builder.v1.StorageService": self.builder_address,
            "uhmalguhm.machines.v1.MachineService": self.machines_address,
            **self.routes,
        }
