"""What users have here, and lose when they are deleted: all that the builder has of theirs.

The first thing is to end what runs. Some of the rest may have to stay for a while: an image that a machine holds, until
the machines service has heard of the deletion; and what a publication began to upload, with the credentials for it,
until a worker has given that up, since nobody else could.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uhm_builder.errors import UploadsLeft
from uhm_common.events import publication_cancel_subject

if TYPE_CHECKING:
    from uhm_builder.inside.service import Inside
    from uhm_builder.parts import Parts
    from uhm_builder.service import Images

__all__ = ["BuilderBelongings"]


class BuilderBelongings:
    """For `Departures`. Times are nanoseconds since the epoch."""

    def __init__(self, *, parts: Parts, images: Images, inside: Inside) -> None:
        self._parts = parts
        self._images = images
        self._inside = inside

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Deletes everything that an owner made before that time.

        Raises ImageInUse, StillBuilding or UploadsLeft where some of it has to stay until later.
        """
        await self._end(owner, before=before)
        await self._parts.registries.delete_all(owner=owner, before=before)
        await self._parts.contexts.delete_all(owner=owner, before=before)
        await self._parts.idempotency_keys.delete_all(owner=owner, before=before)
        await self._parts.publications.delete_all(owner=owner, before=before)
        untidy = await self._parts.publications.untidy(owner=owner)
        needed = {publication.location for publication in untidy}
        await self._parts.locations.delete_all(owner=owner, before=before, but=needed)
        await self._delete_images(owner, before=before)
        if needed:
            raise UploadsLeft(f"Uploads to {', '.join(sorted(needed))} have not been given up yet.")

    async def _end(self, owner: str, *, before: int) -> None:
        """Cancels what is being built and published."""
        events, publications = self._parts.events, self._parts.publications
        for image in await self._parts.store.building(owner=owner):
            if image.created_at < before:
                await self._images.cancel(image.id, owner=owner)
        for publication in await publications.publishing(owner=owner):
            if publication.created_at < before and await publications.cancel(publication.id, owner=owner):
                await events.publish(publication_cancel_subject(publication.id), {})

    async def _delete_images(self, owner: str, *, before: int) -> None:
        images = await self._parts.store.made(owner=owner, before=before)
        try:
            await self._parts.retention.delete_all(images)
        finally:
            for image in images:
                await self._inside.forget(image)
