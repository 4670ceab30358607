"""What a worker does beside building: the base, sweeping, and builds whose message was lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from uhm_builder.worker.lost import ask_again
from uhm_common.errors import UhmError
from uhm_common.events import BUILDS_REQUESTED, BUILDS_STREAM
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.bases import BaseKeeper
    from uhm_builder.parts import Parts

__all__ = ["Upkeep"]

log = get_logger()

SWEEP_EVERY_SECONDS = 600.0


class Upkeep:
    """Background work of one worker."""

    def __init__(self, *, parts: Parts, bases: BaseKeeper, lost_after_seconds: float) -> None:
        self._parts = parts
        self._lost_after = lost_after_seconds
        self._bases = bases

    async def run(self) -> None:
        """Goes on until cancelled; whatever fails is logged and tried again."""
        making = asyncio.create_task(self._make_base())
        try:
            swept = float("-inf")
            while True:
                try:
                    if time.monotonic() - swept > SWEEP_EVERY_SECONDS:
                        swept = time.monotonic()
                        await self._parts.retention.sweep_everything()
                    await self._ask_again()
                except (SQLAlchemyError, OSError, UhmError) as error:
                    log.warning("upkeep.failed", error=repr(error))
                await asyncio.sleep(self._lost_after / 2)
        finally:
            making.cancel()

    async def idle(self) -> None:
        """After the last running build: what builds that were given up have left, and what is needed again."""
        try:
            await self._parts.retention.sweep()
        except (SQLAlchemyError, OSError) as error:
            log.warning("upkeep.failed", error=repr(error))

    async def _make_base(self) -> None:
        try:
            await self._bases.get()
        except (UhmError, OSError) as error:
            log.warning("base.failed", error=str(error))

    async def _ask_again(self) -> None:
        await ask_again(
            self._parts.store.building,
            stream=BUILDS_STREAM,
            subject=BUILDS_REQUESTED,
            event="build.asked_again",
            database=self._parts.database,
            outbox=self._parts.outbox,
            events=self._parts.events,
            lost_after_seconds=self._lost_after,
        )
