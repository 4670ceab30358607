"""The end of what the Docker Engine said while it built an image, kept for whoever asks after the build."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from uhm_builder.models import OutputRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uhm_common.database import Database

__all__ = ["Outputs"]


class Outputs:
    """A text per image, which goes when the image does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, image_id: str, lines: Iterable[str]) -> None:
        """Keeps the output of the newest attempt; nothing where the image was deleted meanwhile."""
        row = {"image_id": image_id, "text": "\n".join(lines)}
        with suppress(IntegrityError):
            async with self._database.write() as session:
                await session.execute(delete(OutputRow).where(OutputRow.image_id == image_id))
                await session.execute(insert(OutputRow).values(row))

    async def lines(self, image_id: str) -> list[str]:
        """What was kept."""
        query = select(OutputRow.text).where(OutputRow.image_id == image_id)
        async with self._database.read() as session:
            text = await session.scalar(query)
        return [] if text is None else text.split("\n")
