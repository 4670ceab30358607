"""What is done when a user was deleted: whatever the builder has of theirs goes, too.

The event comes at least once, and again until nothing is left: a machine may hold an image for a while, until the
machines service has heard of it. The first thing is to end what runs. Calls that began before everybody refused the
user's tokens may still have made something then, so it is done once more after a pause, which also lets workers give up
what they were uploading, while there still are credentials for that. Nobody gets the name again, so that hearing of a
deletion late, or twice, does no harm.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uhm_builder.errors import ImageInUse
from uhm_common.events import publication_cancel_subject
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.inside.service import Inside
    from uhm_builder.parts import Parts
    from uhm_builder.service import Images

__all__ = ["DURABLE", "Departures"]

log = get_logger()

DURABLE = "builder-departures"
SETTLE_SECONDS = 6.0
"""A token of a session that was ended is refused everywhere after five seconds."""
AT_ONCE = 500


class Departures:
    """Handles `uhm.users.deleted`."""

    def __init__(self, *, parts: Parts, images: Images, inside: Inside, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._parts = parts
        self._images = images
        self._inside = inside
        self._settle = settle_seconds

    async def handle(self, _subject: str, payload: dict[str, Any]) -> None:
        """Deletes everything of a user. Raises ImageInUse where some of it has to stay until later."""
        owner = payload.get("username")
        if not isinstance(owner, str):
            log.warning("departure.malformed", payload=payload)
            return
        await self._end(owner)
        await asyncio.sleep(self._settle)
        await self._end(owner)
        await self._forget(owner)
        await self._delete_images(owner)
        log.info("departure.done", owner=owner)

    async def _end(self, owner: str) -> None:
        """Cancels what is being built and published."""
        events, publications = self._parts.events, self._parts.publications
        for image in await self._parts.store.building(owner=owner):
            await self._images.cancel(image.id, owner=owner)
        for publication in await publications.publishing(owner=owner):
            if await publications.cancel(publication.id, owner=owner):
                await events.publish(publication_cancel_subject(publication.id), {})

    async def _forget(self, owner: str) -> None:
        """Deletes credentials, uploads, publications and idempotency keys."""
        await self._parts.registries.delete_all(owner=owner)
        await self._parts.locations.delete_all(owner=owner)
        await self._parts.publications.delete_all(owner=owner)
        await self._parts.contexts.delete_all(owner=owner)
        await self._parts.idempotency_keys.delete_all(owner=owner)

    async def _delete_images(self, owner: str) -> None:
        """Deletes all images that can be; raises what keeps the others."""
        kept: Exception | None = None
        before: int | None = None
        while images := await self._parts.store.page(owner=owner, before=before, limit=AT_ONCE):
            for image in images:
                try:
                    await self._parts.retention.delete(image)
                    await self._inside.forget(image)
                except ImageInUse as error:
                    kept = error
            before = images[-1].number
        if kept is not None:
            raise kept
