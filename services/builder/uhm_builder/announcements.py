"""What other services hear of images: events that are written in the transaction that makes them true.

An image is announced once as ready, and once as deleted if it was ready; its id never comes again. `uhm_common.events`
tells what the events carry.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from uhm_common.events import IMAGES_DELETED, IMAGES_READY, encode

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_builder.images import Image
    from uhm_builder.pipeline import Made
    from uhm_common.outbox import Outbox

__all__ = ["announce_deleted", "announce_ready"]

EVENT_MAX_BYTES = 512 << 10
"""NATS takes messages up to 1 MB. A larger one would wait in the outbox for ever, and all others behind it."""


async def announce_ready(outbox: Outbox, session: AsyncSession, image: Image, made: Made) -> None:
    """Adds to the session's transaction that an image is ready, with its configuration unless that is huge."""
    event = _event(image, disk_digest=made.disk_digest)
    whole = event | {"config": asdict(made.config)}
    fits = len(encode(whole)) <= EVENT_MAX_BYTES
    await outbox.add(session, IMAGES_READY, whole if fits else event, message_id=f"{image.id}-ready")


async def announce_deleted(outbox: Outbox, session: AsyncSession, image: Image) -> None:
    """Adds to the session's transaction that an image which was ready is no more."""
    event = _event(image, disk_digest=image.disk_digest)
    await outbox.add(session, IMAGES_DELETED, event, message_id=f"{image.id}-deleted")


def _event(image: Image, *, disk_digest: str) -> dict[str, Any]:
    return {"id": image.id, "owner": image.owner, "reference": image.reference, "disk_digest": disk_digest}
