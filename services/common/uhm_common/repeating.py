"""Work that is done again and again, and goes on when the database was away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy.exc import SQLAlchemyError

from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["repeat"]

log = get_logger()


async def repeat(work: Callable[[], Awaitable[object]], *, seconds: float, failed: str) -> NoReturn:
    """Does some work until cancelled, with so many seconds between.

    Where the database is away it is logged as `failed`, and the work is done the next time. Whatever else goes wrong
    is raised.
    """
    while True:
        try:
            await work()
        except (SQLAlchemyError, OSError) as error:
            log.warning(failed, error=repr(error))
        await asyncio.sleep(seconds)
