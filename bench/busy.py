"""Cores that are kept busy while something else is measured."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["busy_cores"]


@contextmanager
def busy_cores() -> Iterator[None]:
    """One loop for every core."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_loop, daemon=True) for _ in range(os.cpu_count() or 1)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def _loop() -> None:
    """Takes all that a core gives, until whoever started it is gone.

    In a session of its own, as a machine is: Linux shares the processor out between sessions first (sched_autogroup).
    """
    os.setsid()
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(1_000_000):
            pass
