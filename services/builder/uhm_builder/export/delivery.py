"""An exported disk on its way to a client: what is said of it first, and its bytes, no faster than they are taken."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from google.api import httpbody_pb2

from uhm_builder.errors import ClientStalled, NoSuchImage, StillBuilding
from uhm_builder.export.options import export_options
from uhm_builder.export.sparse import pieces
from uhm_builder.images import Status
from uhm_builder.threads import in_thread
from uhmalguhm.builder.v1 import image_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uhm_builder.export.exporter import ExportedDisk, Exporter
    from uhm_builder.images import Image
    from uhm_builder.service import Images

__all__ = ["Delivery", "export_metadata"]

CONTENT_TYPE = "application/octet-stream"


class Delivery:
    """Exports for clients. `stall_seconds` is how long one may take nothing before it is given up."""

    def __init__(self, *, images: Images, exporter: Exporter, stall_seconds: float) -> None:
        self._images = images
        self._exporter = exporter
        self._stall_seconds = stall_seconds

    async def deliver(
        self,
        request: image_pb2.ExportImageRequest,
        *,
        owner: str,
        announce: Callable[[tuple[tuple[str, str], ...]], Awaitable[None]],
        send: Callable[[image_pb2.ExportImageResponse], Awaitable[None]],
    ) -> image_pb2.ExportImageResponse:
        """Makes the disk, announces it, sends it, and answers the last message, which is the caller's to send.

        Raises ClientStalled, NoSuchImage, StillBuilding and what exporting raises.
        """
        options = export_options(
            format=request.format,
            compression=request.compression,
            seal=request.seal,
            verify=request.verify,
            size_bytes=request.size_bytes,
        )
        image = _ready(await self._images.get(request.id, owner=owner))
        async with self._exporter.exported(image, options) as disk:
            await announce(export_metadata(disk))
            coming = pieces(disk.path)
            message = _message(next(coming), content_type=CONTENT_TYPE)
            while piece := await in_thread(lambda: next(coming, b"")):
                await self._taken(send(message))
                message = _message(piece)
        return message

    async def _taken(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await sending
        except TimeoutError as error:
            raise ClientStalled(
                f"Nothing of the disk was taken for {self._stall_seconds:g} s, so it was deleted.",
                hint="Export it again.",
            ) from error


def _ready(image: Image) -> Image:
    if image.status is Status.BUILDING:
        raise StillBuilding(f"The image {image.id} is being built.", hint="`uhm images` shows how far it is.")
    if image.status is not Status.READY:
        raise NoSuchImage(f"The image {image.id} is {image.status}.", hint="Make it again.")
    return image


def _message(piece: bytes, *, content_type: str = "") -> image_pb2.ExportImageResponse:
    return image_pb2.ExportImageResponse(body=httpbody_pb2.HttpBody(content_type=content_type, data=piece))


def export_metadata(disk: ExportedDisk) -> tuple[tuple[str, str], ...]:
    """What a client hears before the first byte; metadata is ASCII, so what else a finding has is escaped."""
    findings = (finding.encode("ascii", "backslashreplace").decode() for finding in disk.findings)
    return (
        ("uhm-digest", disk.digest),
        ("uhm-size", str(disk.size)),
        ("uhm-filename", disk.filename),
        ("uhm-phases", json.dumps([asdict(phase) for phase in disk.phases])),
        *(("uhm-findings", finding) for finding in findings),
    )
