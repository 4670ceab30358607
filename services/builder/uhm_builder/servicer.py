"""The gRPC face of the builder: messages to the domain and back, nothing else."""
# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from uhm_builder.messages import image_message, watch_message, wish_of
from uhm_common.identity import current_identity
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from uhm_builder.contexts import Contexts
    from uhm_builder.retention import Retention
    from uhm_builder.service import Images
    from uhm_builder.watch import Watcher

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE_NAME", "ImageServicer"]

SERVICE_NAME: str = image_pb2.DESCRIPTOR.services_by_name["ImageService"].full_name


class ImageServicer(image_pb2_grpc.ImageServiceServicer):
    """Implements uhmalguhm.builder.v1.ImageService for whoever calls."""

    def __init__(self, *, images: Images, watcher: Watcher, retention: Retention, contexts: Contexts) -> None:
        self._images = images
        self._watcher = watcher
        self._retention = retention
        self._contexts = contexts

    async def CreateImage(
        self, request: image_pb2.CreateImageRequest, context: Context
    ) -> image_pb2.CreateImageResponse:
        """Takes the wish for an image."""
        image_id = await self._images.create(wish_of(request), owner=_caller())
        return image_pb2.CreateImageResponse(id=image_id, status="building")

    async def GetImage(self, request: image_pb2.GetImageRequest, context: Context) -> image_pb2.GetImageResponse:
        """One image."""
        image = await self._images.get(request.id, owner=_caller())
        return image_pb2.GetImageResponse(image=image_message(image))

    async def ListImages(self, request: image_pb2.ListImagesRequest, context: Context) -> image_pb2.ListImagesResponse:
        """A page of the caller's images."""
        page = await self._images.page(
            size=request.page_size, token=request.page_token, reference=request.reference, owner=_caller()
        )
        return image_pb2.ListImagesResponse(
            images=[image_message(image) for image in page.images], next_page_token=page.next_token
        )

    async def DeleteImage(
        self, request: image_pb2.DeleteImageRequest, context: Context
    ) -> image_pb2.DeleteImageResponse:
        """Deletes an image."""
        image = await self._images.get_deletable(request.id, owner=_caller())
        return image_pb2.DeleteImageResponse(freed_bytes=await self._retention.delete(image))

    async def WatchImage(
        self, request: image_pb2.WatchImageRequest, context: Context
    ) -> AsyncIterator[image_pb2.WatchImageResponse]:
        """Follows a build."""
        image = await self._images.newest(request.id, owner=_caller())
        async with aclosing(self._watcher.watch(image.id)) as events:
            async for event in events:
                yield watch_message(event)

    async def CancelImage(
        self, request: image_pb2.CancelImageRequest, context: Context
    ) -> image_pb2.CancelImageResponse:
        """Cancels a build."""
        image = await self._images.cancel(request.id, owner=_caller())
        return image_pb2.CancelImageResponse(image=image_message(image))

    async def UploadContext(
        self, request_iterator: AsyncIterator[image_pb2.UploadContextRequest], context: Context
    ) -> image_pb2.UploadContextResponse:
        """Takes a build context."""
        pieces = (request.body.data async for request in request_iterator)
        upload = await self._contexts.receive(pieces, owner=_caller())
        return image_pb2.UploadContextResponse(id=upload.id, size_bytes=upload.size)


def _caller() -> str:
    return current_identity().username
