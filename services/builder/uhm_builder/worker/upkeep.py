"""What a worker does beside building: the base, sweeping, and builds whose message was lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from nats.errors import Error as NatsError
from nats.js.errors import APIError
from sqlalchemy.exc import SQLAlchemyError

from uhm_common.errors import UhmError, Unavailable
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
        """Puts builds that nobody holds into the queue again, where it is empty: their messages were lost."""
        try:
            state = (await self._parts.events.stream.stream_info(BUILDS_STREAM)).state
        except (NatsError, APIError, Unavailable, TimeoutError):
            return
        if state.messages:
            return
        for image in await self._parts.store.building(lease_before=time.time_ns() - int(self._lost_after * 1e9)):
            log.warning("build.asked_again", build_id=image.id)
            async with self._parts.database.write() as session:
                message_id = f"{image.id}-{time.time_ns()}"
                await self._parts.outbox.add(session, BUILDS_REQUESTED, {"id": image.id}, message_id=message_id)
        self._parts.outbox.wake()
