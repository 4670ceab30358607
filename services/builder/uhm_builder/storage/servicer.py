"""The gRPC face of storage locations: messages to the domain and back, nothing else."""
# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from uhm_builder.storage.messages import place_asked_for, publication_message, published_message, storage_message
from uhm_common.callers.identity import current_identity
from uhmalguhm.builder.v1 import storage_pb2, storage_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from uhm_builder.storage.service import Storage

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["STORAGE_SERVICE", "StorageServicer"]

STORAGE_SERVICE: str = storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """Implements uhmalguhm.builder.v1.StorageService for whoever calls."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def CreateStorage(
        self, request: storage_pb2.CreateStorageRequest, context: Context
    ) -> storage_pb2.CreateStorageResponse:
        """Adds a location, once it was tried."""
        location = await self._storage.add(request.storage.name, place_asked_for(request.storage), owner=_caller())
        return storage_pb2.CreateStorageResponse(storage=storage_message(location))

    async def GetStorage(
        self, request: storage_pb2.GetStorageRequest, context: Context
    ) -> storage_pb2.GetStorageResponse:
        """One location."""
        location = await self._storage.get(request.name, owner=_caller())
        return storage_pb2.GetStorageResponse(storage=storage_message(location))

    async def ListStorage(
        self, request: storage_pb2.ListStorageRequest, context: Context
    ) -> storage_pb2.ListStorageResponse:
        """A page of the caller's locations."""
        page = await self._storage.page(size=request.page_size, token=request.page_token, owner=_caller())
        return storage_pb2.ListStorageResponse(
            storage=[storage_message(location) for location in page.entries], next_page_token=page.next_token
        )

    async def DeleteStorage(
        self, request: storage_pb2.DeleteStorageRequest, context: Context
    ) -> storage_pb2.DeleteStorageResponse:
        """Forgets a location."""
        await self._storage.delete(request.name, owner=_caller())
        return storage_pb2.DeleteStorageResponse()

    async def TestStorage(
        self, request: storage_pb2.TestStorageRequest, context: Context
    ) -> storage_pb2.TestStorageResponse:
        """Tries a location out."""
        await self._storage.test(request.name, owner=_caller())
        return storage_pb2.TestStorageResponse()

    async def ListPublishedImages(
        self, request: storage_pb2.ListPublishedImagesRequest, context: Context
    ) -> storage_pb2.ListPublishedImagesResponse:
        """What the index of a location has."""
        entries = await self._storage.published(request.name, owner=_caller())
        return storage_pb2.ListPublishedImagesResponse(images=[published_message(entry) for entry in entries])

    async def PublishImage(
        self, request: storage_pb2.PublishImageRequest, context: Context
    ) -> storage_pb2.PublishImageResponse:
        """Takes the wish for a publication."""
        publication = await self._storage.publish(request.id, request.storage, format=request.format, owner=_caller())
        return storage_pb2.PublishImageResponse(publication=publication_message(publication))

    async def GetPublication(
        self, request: storage_pb2.GetPublicationRequest, context: Context
    ) -> storage_pb2.GetPublicationResponse:
        """One publication."""
        publication = await self._storage.publication(request.id, owner=_caller())
        return storage_pb2.GetPublicationResponse(publication=publication_message(publication))

    async def ListPublications(
        self, request: storage_pb2.ListPublicationsRequest, context: Context
    ) -> storage_pb2.ListPublicationsResponse:
        """A page of the caller's publications."""
        page = await self._storage.publications(size=request.page_size, token=request.page_token, owner=_caller())
        return storage_pb2.ListPublicationsResponse(
            publications=[publication_message(publication) for publication in page.entries],
            next_page_token=page.next_token,
        )

    async def WatchPublication(
        self, request: storage_pb2.WatchPublicationRequest, context: Context
    ) -> AsyncIterator[storage_pb2.WatchPublicationResponse]:
        """Follows a publication."""
        async with aclosing(self._storage.watch(request.id, owner=_caller())) as states:
            async for publication in states:
                yield storage_pb2.WatchPublicationResponse(publication=publication_message(publication))

    async def CancelPublication(
        self, request: storage_pb2.CancelPublicationRequest, context: Context
    ) -> storage_pb2.CancelPublicationResponse:
        """Cancels a publication."""
        publication = await self._storage.cancel(request.id, owner=_caller())
        return storage_pb2.CancelPublicationResponse(publication=publication_message(publication))


def _caller() -> str:
    return current_identity().username
