"""The gRPC face of users' registries: messages to the domain and back, nothing else."""
# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm_builder.messages import timestamp
from uhm_builder.registries import Registry, RegistryWish
from uhm_common.callers.identity import current_identity
from uhmalguhm.builder.v1 import registry_pb2, registry_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from uhm_builder.registries import Registries
    from uhm_builder.sources.clients import RegistryClients

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["REGISTRY_SERVICE", "RegistryServicer"]

REGISTRY_SERVICE: str = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"].full_name


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Implements uhmalguhm.builder.v1.RegistryService for whoever calls."""

    def __init__(self, *, registries: Registries, clients: RegistryClients) -> None:
        self._registries = registries
        self._clients = clients

    async def CreateRegistry(
        self, request: registry_pb2.CreateRegistryRequest, context: Context
    ) -> registry_pb2.CreateRegistryResponse:
        """Adds a registry."""
        wish = RegistryWish(
            host=request.registry.host,
            username=request.registry.username,
            password=request.registry.password,
            identity_token=request.registry.identity_token,
            ca_certificate=request.registry.ca_certificate,
        )
        clients = None if request.skip_test else self._clients
        added = await self._registries.add(wish, owner=_caller(), clients=clients)
        return registry_pb2.CreateRegistryResponse(registry=_message(added))

    async def GetRegistry(
        self, request: registry_pb2.GetRegistryRequest, context: Context
    ) -> registry_pb2.GetRegistryResponse:
        """One registry."""
        found = await self._registries.get(request.host, owner=_caller())
        return registry_pb2.GetRegistryResponse(registry=_message(found))

    async def ListRegistries(
        self, request: registry_pb2.ListRegistriesRequest, context: Context
    ) -> registry_pb2.ListRegistriesResponse:
        """A page of the caller's registries."""
        page = await self._registries.page(size=request.page_size, token=request.page_token, owner=_caller())
        return registry_pb2.ListRegistriesResponse(
            registries=[_message(registry) for registry in page.registries], next_page_token=page.next_token
        )

    async def DeleteRegistry(
        self, request: registry_pb2.DeleteRegistryRequest, context: Context
    ) -> registry_pb2.DeleteRegistryResponse:
        """Forgets a registry."""
        await self._registries.delete(request.host, owner=_caller())
        return registry_pb2.DeleteRegistryResponse()


def _message(registry: Registry) -> registry_pb2.Registry:
    return registry_pb2.Registry(
        host=registry.host,
        username=registry.username,
        ca_certificate=registry.ca_certificate,
        create_time=timestamp(registry.created_at),
    )


def _caller() -> str:
    return current_identity().username
