"""What every source of container images can do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from uhm_builder.images import ImageConfig, Layer, StageName
    from uhm_builder.layers import LayerMaker

__all__ = ["Reporter", "Resolved", "Source", "together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference stands for now."""

    digest: str
    """Of the manifest (registry), or the image's id (Docker Engine)."""
    config: ImageConfig
    layers: tuple[Layer, ...]
    """The bottom layer first; their sizes are not known yet."""
    reference: str = ""
    """The image's name, where the source knows one that the wish for it did not have."""


async def together(making: Iterable[Coroutine[Any, Any, Layer]]) -> list[Layer]:
    """Layers that are made at the same time. The first error ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in making]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


class Reporter(Protocol):
    """Hears how a build gets on. What it hears may be dropped."""

    def progress(self, *, stage: str, layer: str, done: int, total: int) -> None:
        """Bytes done of one layer; 0 in all where it is not known."""

    def output(self, line: str) -> None:
        """A line of the Docker Engine's output."""


class Source(Protocol):
    """A container image that somebody asked for. The methods are called in this order, once."""

    async def resolve(self) -> Resolved | StageName:
        """Finds out what it is; answers a stage where that takes `build`, which is then that stage."""

    async def build(self) -> Resolved:
        """Makes the container image, where there is none yet."""

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Brings all its layers into the store."""

    async def close(self) -> None:
        """Gives back what it holds."""
