"""What one user may have: images, bytes of their layers, builds at once. 0 stands for no bound.

Both checks are part of the transaction that they guard, and serialised by owner: many requests at once get no further
than one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_builder.errors import QuotaReached

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncSession

    from uhm_builder.images import Layer
    from uhm_builder.store import ImageStore
    from uhm_common.database import Database

__all__ = ["Quota", "Quotas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The bounds."""

    images: int = 0
    bytes: int = 0
    builds: int = 0

    def __bool__(self) -> bool:
        """Whether there is any bound."""
        return bool(self.images or self.bytes or self.builds)


class Quotas:
    """Holds everybody to the same quota."""

    def __init__(self, quota: Quota, *, database: Database, store: ImageStore) -> None:
        self.quota = quota
        self._database = database
        self._store = store

    async def admit(self, session: AsyncSession, *, owner: str) -> None:
        """Lets the session's transaction add an image of this owner. Raises QuotaReached."""
        if not self.quota:
            return
        await self._database.serialise(session, f"quota:{owner}")
        held = await self._store.holdings(session, owner)
        images = held.images + held.building
        if self.quota.builds and held.building >= self.quota.builds:
            raise QuotaReached(
                f"{held.building} of your images are being built; {self.quota.builds} may be at once.",
                hint="Wait for one to end, or cancel it with `uhm cancel`.",
                quota="builds",
            )
        if self.quota.images and images >= self.quota.images:
            raise QuotaReached(
                f"You have {images} images, of which {held.building} are being built; {self.quota.images} are allowed.",
                hint="Delete some with `uhm rmi` or `uhm gc --untagged`.",
                quota="images",
            )
        if self.quota.bytes and held.bytes >= self.quota.bytes:
            raise _too_many_bytes(f"Your images have {held.bytes} bytes", self.quota)

    async def admit_layers(self, session: AsyncSession, *, owner: str, layers: Iterable[Layer]) -> None:
        """Lets the session's transaction finish an image of these layers. Raises QuotaReached."""
        if not self.quota.bytes:
            return
        await self._database.serialise(session, f"quota:{owner}")
        held = await self._store.holdings(session, owner)
        together = sum((held.layers | {layer.diff_id: layer.size for layer in layers}).values())
        if together > self.quota.bytes:
            raise _too_many_bytes(f"With this image yours would have {together} bytes", self.quota)


def _too_many_bytes(used: str, quota: Quota) -> QuotaReached:
    return QuotaReached(
        f"{used} in layers, each counted once; {quota.bytes} are allowed.",
        hint="Delete images with `uhm rmi` or `uhm gc --untagged`; `uhm df -v` shows what each takes.",
        quota="bytes",
    )
