"""Watching a build: the database says what is so, NATS only that it is worth a look, or how far a layer is.

Of a build that has ended already, what was kept of its output is told again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uhm_builder.errors import NoSuchImage
from uhm_builder.hints import hints_on, until_changed
from uhm_common.events import progress_subject

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from uhm_builder.hints import Hint, Hints
    from uhm_builder.images import Image
    from uhm_builder.outputs import Outputs
    from uhm_builder.store import ImageStore
    from uhm_common.events import EventBus

__all__ = ["LayerProgress", "OutputLine", "Watcher"]

LAST_WORDS_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """Bytes done of one layer; `total` is 0 where it is not known."""

    stage: str
    layer: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line of the Docker Engine's output."""

    text: str


class Watcher:
    """Follows builds."""

    def __init__(self, *, store: ImageStore, outputs: Outputs, events: EventBus) -> None:
        self._store = store
        self._outputs = outputs
        self._events = events

    async def watch(self, image_id: str) -> AsyncGenerator[Image | LayerProgress | OutputLine, None]:
        """The image now and at each change, and what its build tells, until it has ended. Raises NoSuchImage."""
        async with hints_on(progress_subject(image_id), events=self._events) as hints:
            shown: Image | None = None
            heard_all = False
            while True:
                image = await self._store.get(image_id)
                if image is None:
                    raise NoSuchImage(f"The image {image_id} was deleted.")
                if image.status.ended:
                    if shown is None:
                        heard_all = True  # it had ended before anybody watched
                        for line in await self._outputs.lines(image_id):
                            yield OutputLine(line)
                    async for word in _last_words(hints, heard_all=heard_all):
                        yield word
                    yield image
                    return
                visible = replace(image, lease_until=0)
                if visible != shown:
                    shown = visible
                    yield image
                heard_all = False
                async for hint in until_changed(hints):
                    heard_all = "ended" in hint
                    for word in _words(hint):
                        yield word


async def _last_words(hints: Hints, *, heard_all: bool) -> AsyncIterator[LayerProgress | OutputLine]:
    """What a build that has ended still says: its worker may be a moment behind the database."""
    while not heard_all:
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                hint = await hints.get()
        except TimeoutError:
            return
        heard_all = "ended" in hint
        for word in _words(hint):
            yield word


def _words(hint: Hint) -> list[LayerProgress | OutputLine]:
    progress = [LayerProgress(**entry) for entry in hint.get("progress", ())]
    return [*progress, *(OutputLine(line) for line in hint.get("output", ()))]
