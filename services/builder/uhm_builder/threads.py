"""Blocking work beside the event loop that a cancellation waits for, so that nothing is cleared away under it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

__all__ = ["entered", "in_thread", "locked_when_free"]

Result = TypeVar("Result")
LOCK_POLL_SECONDS = 0.02


def _let_it_end() -> None:
    """The interruption of work that is soon over."""


async def in_thread(work: Callable[[], Result], *, interrupt: Callable[[], None] = _let_it_end) -> Result:
    """Runs blocking work in a thread. When cancelled it calls `interrupt`, waits for the thread, and then ends."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        interrupt()
        await _ended(running)
        raise


async def _ended(running: asyncio.Future[Result]) -> None:
    """Waits for work whose result nobody wants, whatever else is cancelled meanwhile."""
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            continue
    if not running.cancelled():
        running.exception()


@asynccontextmanager
async def entered(lock: AbstractContextManager[Result]) -> AsyncIterator[Result]:
    """A blocking context manager that may have to wait a little to be entered, and to be left."""
    entering = asyncio.ensure_future(asyncio.to_thread(lock.__enter__))
    try:
        held = await asyncio.shield(entering)
    except asyncio.CancelledError:
        await _ended(entering)
        if entering.exception() is None:
            await _left(lock)
        raise
    try:
        yield held
    finally:
        await _left(lock)


async def _left(lock: AbstractContextManager[Result]) -> None:
    """Leaves it, which a cancellation waits for, in a thread of its own: all others may be waiting to enter it."""
    thread = ThreadPoolExecutor(max_workers=1)
    leaving = asyncio.get_running_loop().run_in_executor(thread, partial(lock.__exit__, None, None, None))
    thread.shutdown(wait=False)  # after that
    try:
        await asyncio.shield(leaving)
    except asyncio.CancelledError:
        await _ended(leaving)
        raise


@asynccontextmanager
async def locked_when_free(
    lock: Callable[[], AbstractContextManager[None]], *, patience: float = float("inf")
) -> AsyncIterator[None]:
    """A lock that may be held for long: asked for again and again, without a thread that waits.

    `lock` makes a context manager whose entering raises BlockingIOError while somebody else holds it. So does this,
    when it has not been free for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        held = lock()
        try:
            held.__enter__()
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(LOCK_POLL_SECONDS)
        else:
            break
    try:
        yield
    finally:
        held.__exit__(None, None, None)
