"""Blocking context managers beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from uhm_builder.threads import entered


class Slow:
    """A context manager that takes its time, and notes in which thread."""

    def __init__(self, *, enter=0.0, leave=0.0):
        self.left = False
        self.threads = set()
        self._enter, self._leave = enter, leave

    @contextmanager
    def __call__(self):
        self.threads.add(threading.get_ident())
        time.sleep(self._enter)
        try:
            yield
        finally:
            time.sleep(self._leave)
            self.threads.add(threading.get_ident())
            self.left = True


async def test_neither_entering_nor_leaving_is_on_the_loop():
    slow = Slow()
    async with entered(slow()):
        pass
    assert slow.left
    assert threading.get_ident() not in slow.threads


@pytest.mark.parametrize(("enter", "leave"), [(0.2, 0.2), (0.0, 0.3)])
async def test_a_cancellation_waits_until_it_is_left(enter, leave):
    slow = Slow(enter=enter, leave=leave)

    async def use():
        async with entered(slow()):
            pass

    task = asyncio.create_task(use())
    for _ in range(3):  # in the middle of either
        await asyncio.sleep(0.1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.left


async def test_it_can_be_left_while_others_have_all_threads_to_enter_it():
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    lock = threading.Lock()

    async def use():
        async with entered(lock):
            await asyncio.sleep(0.01)

    async with asyncio.timeout(10):
        await asyncio.gather(*(use() for _ in range(8)))
