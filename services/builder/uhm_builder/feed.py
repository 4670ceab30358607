"""Progress and output of one build on their way to those who watch it, over NATS, a few messages a second.

A message on `uhm.builds.<id>.progress` is one JSON object: {"changed": true}, which says that the database is worth a
look ("ended" beside it: for the last time), or {"progress": [{"stage", "layer", "done", "total"}, …]}, or
{"output": [line, …]}. All of them may be lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from uhm_common.events import progress_subject

if TYPE_CHECKING:
    from uhm_common.events import EventBus

__all__ = ["Feed"]

FLUSH_SECONDS = 0.1
LINES_AT_ONCE = 40  # with lines this long a message stays below NATS's bound of 1 MiB, whatever the characters
LINE_MAX = 2000
WAITING_LINES_MAX = 10_000
KEPT_CHARACTERS = 256 * 1024


class Feed:
    """A `Reporter` that may be called from any thread; `run` sends what it has heard."""

    def __init__(self, build_id: str, *, events: EventBus) -> None:
        self._subject = progress_subject(build_id)
        self._events = events
        self._progress: dict[str, dict[str, Any]] = {}
        self._lines: deque[str] = deque(maxlen=WAITING_LINES_MAX)
        self._kept: deque[str] = deque()
        self._kept_characters = 0

    def progress(self, *, stage: str, layer: str, done: int, total: int) -> None:
        """Bytes done of one layer; only the newest number is sent."""
        self._progress[layer] = {"stage": stage, "layer": layer, "done": done, "total": total}

    def output(self, line: str) -> None:
        """A line of the Docker Engine's output."""
        line = line[:LINE_MAX]
        self._lines.append(line)
        self._kept.append(line)
        self._kept_characters += len(line) + 1
        while self._kept_characters > KEPT_CHARACTERS:
            self._kept_characters -= len(self._kept.popleft()) + 1

    @property
    def kept(self) -> tuple[str, ...]:
        """The end of the output, as much as is worth keeping."""
        return tuple(self._kept)

    async def run(self) -> None:
        """Sends what it has heard, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Sends what it has heard."""
        while self._lines:
            lines = [self._lines.popleft() for _ in range(min(len(self._lines), LINES_AT_ONCE))]
            await self._events.publish(self._subject, {"output": lines})
        if self._progress:
            progress, self._progress = self._progress, {}
            await self._events.publish(self._subject, {"progress": list(progress.values())})

    async def changed(self) -> None:
        """Says that the database has something new, after all that was heard before."""
        await self.flush()
        await self._events.publish(self._subject, {"changed": True})

    async def ended(self) -> None:
        """Says that nothing more will come, after all that was heard before."""
        await self.flush()
        await self._events.publish(self._subject, {"changed": True, "ended": True})
