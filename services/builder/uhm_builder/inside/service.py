"""What clients can ask about the inside of their images."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from uhm_builder.errors import NotReadable
from uhm_builder.images import Status
from uhm_builder.inside.files import Files
from uhm_builder.inside.packages import find_packages
from uhm_builder.inside.sbom import SbomFormat, sbom_document

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from uhm_builder.images import Image
    from uhm_builder.inside.diff import Change
    from uhm_builder.inside.files import FilePage
    from uhm_builder.inside.sbom import Sbom
    from uhm_builder.inside.views import Views
    from uhm_builder.service import Images
    from uhm_common.paging import PageTokens

__all__ = ["Inside"]


class Inside:
    """Looks into the ready images of whoever asks."""

    def __init__(self, *, images: Images, views: Views, page_tokens: PageTokens, max_file_bytes: int) -> None:
        self._images = images
        self._views = views
        self._files = Files(views, page_tokens=page_tokens, max_bytes=max_file_bytes)

    async def page(self, name: str, *, path: str, recursive: bool, size: int, token: str, owner: str) -> FilePage:
        """A page of an image's directory. Raises NoSuchImage, and what `Files.page` raises."""
        image = await self._ready(name, owner=owner)
        return await self._files.page(image.disk_digest, path=path, recursive=recursive, size=size, token=token)

    async def content(self, name: str, path: str, *, owner: str) -> AsyncGenerator[bytes, None]:
        """The content of an image's file. Raises NoSuchImage, and what `Files.content` raises."""
        image = await self._ready(name, owner=owner)
        async with aclosing(self._files.content(image.disk_digest, path)) as pieces:
            async for piece in pieces:
                yield piece

    async def diff(self, name: str, other: str, *, owner: str) -> list[Change]:
        """What changed from one image to another. Raises NoSuchImage, TooMuchInside, and what a view raises."""
        before, after = await self._ready(name, owner=owner), await self._ready(other, owner=owner)
        return await self._views.compare(before.disk_digest, after.disk_digest)

    async def sbom(self, name: str, *, kind: str, owner: str) -> Sbom:
        """The packages of an image. Raises NoSuchImage, InvalidArgument for another format, and what a view raises."""
        wanted = SbomFormat.of(kind)
        image = await self._ready(name, owner=owner)
        packages = await self._views.ask(image.disk_digest, find_packages)
        return sbom_document(image, packages, wanted)

    async def forget(self, image: Image) -> None:
        """Ends what looks into an image that was deleted; images with the same disk launch it again."""
        await self._views.forget(image.disk_digest)

    async def _ready(self, name: str, *, owner: str) -> Image:
        image = await self._images.get(name, owner=owner)
        if image.status is not Status.READY:
            raise NotReadable(f"The image {image.id} is {image.status}; only ready ones have an inside.")
        return image
