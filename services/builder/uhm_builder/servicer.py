"""The gRPC face of the builder: messages to the domain and back, nothing else."""
# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from uhm_builder.inside.messages import changes_message, files_message, piece_message, sbom_message
from uhm_builder.messages import image_message, swept_message, usage_message, watch_message, wish_of
from uhm_common.callers.identity import current_identity
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from uhm_builder.contexts import Contexts
    from uhm_builder.export.delivery import Delivery
    from uhm_builder.inside.service import Inside
    from uhm_builder.retention import Retention
    from uhm_builder.service import Images
    from uhm_builder.usage import UsageMeter
    from uhm_builder.watch import Watcher

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["IMAGE_SERVICE", "ImageServicer"]

IMAGE_SERVICE: str = image_pb2.DESCRIPTOR.services_by_name["ImageService"].full_name


class ImageServicer(image_pb2_grpc.ImageServiceServicer):
    """Implements uhmalguhm.builder.v1.ImageService for whoever calls."""

    def __init__(
        self,
        *,
        images: Images,
        watcher: Watcher,
        retention: Retention,
        usage: UsageMeter,
        contexts: Contexts,
        inside: Inside,
        delivery: Delivery,
    ) -> None:
        self._images = images
        self._watcher = watcher
        self._retention = retention
        self._usage = usage
        self._contexts = contexts
        self._inside = inside
        self._delivery = delivery

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
        freed = await self._retention.delete(image)
        await self._inside.forget(image)
        return image_pb2.DeleteImageResponse(freed_bytes=freed)

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
        requests = aiter(request_iterator)
        first = await anext(requests, image_pb2.UploadContextRequest())
        upload = await self._contexts.receive(
            _pieces(first, requests), owner=_caller(), digest=first.digest, offset=first.offset
        )
        return image_pb2.UploadContextResponse(id=upload.id, size_bytes=upload.size, digest=upload.digest)

    async def GetContext(self, request: image_pb2.GetContextRequest, context: Context) -> image_pb2.GetContextResponse:
        """Tells how much of an upload is there."""
        found = await self._contexts.received(request.digest, owner=_caller())
        return image_pb2.GetContextResponse(
            id=found.id, digest=found.digest, received_bytes=found.size, complete=bool(found.id)
        )

    async def GetUsage(self, request: image_pb2.GetUsageRequest, context: Context) -> image_pb2.GetUsageResponse:
        """Tells what the caller's images take up."""
        return usage_message(await self._usage.of(_caller()))

    async def CollectGarbage(
        self, request: image_pb2.CollectGarbageRequest, context: Context
    ) -> image_pb2.CollectGarbageResponse:
        """Frees what no image needs."""
        swept = await self._retention.collect(
            owner=_caller(),
            untagged=request.untagged,
            older_than_ns=request.older_than.ToNanoseconds(),
            dry_run=request.dry_run,
        )
        return swept_message(swept)

    async def ExportImage(
        self, request: image_pb2.ExportImageRequest, context: Context
    ) -> AsyncIterator[image_pb2.ExportImageResponse]:
        """A disk of the image. All but the end is sent by the delivery, which minds that it is taken."""
        yield await self._delivery.deliver(
            request, owner=_caller(), announce=context.send_initial_metadata, send=context.write
        )

    async def ListFiles(self, request: image_pb2.ListFilesRequest, context: Context) -> image_pb2.ListFilesResponse:
        """A page of an image's files."""
        page = await self._inside.page(
            request.id,
            path=request.path,
            recursive=request.recursive,
            size=request.page_size,
            token=request.page_token,
            owner=_caller(),
        )
        return files_message(page)

    async def ReadFile(
        self, request: image_pb2.ReadFileRequest, context: Context
    ) -> AsyncIterator[image_pb2.ReadFileResponse]:
        """The content of an image's file."""
        async with aclosing(self._inside.content(request.id, request.path, owner=_caller())) as pieces:
            async for piece in pieces:
                yield piece_message(piece)

    async def DiffImages(self, request: image_pb2.DiffImagesRequest, context: Context) -> image_pb2.DiffImagesResponse:
        """What differs between two images."""
        return changes_message(await self._inside.diff(request.id, request.other, owner=_caller()))

    async def GetSbom(self, request: image_pb2.GetSbomRequest, context: Context) -> image_pb2.GetSbomResponse:
        """The packages of an image."""
        return sbom_message(await self._inside.sbom(request.id, kind=request.format, owner=_caller()))


async def _pieces(
    first: image_pb2.UploadContextRequest, rest: AsyncIterator[image_pb2.UploadContextRequest]
) -> AsyncIterator[bytes]:
    yield first.body.data
    async for request in rest:
        yield request.body.data


def _caller() -> str:
    return current_identity().username
