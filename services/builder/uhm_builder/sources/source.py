"""What every source of container images can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uhm_builder.images import ImageConfig, Layer
    from uhm_builder.layers import LayerMaker

__all__ = ["Reporter", "Resolved", "Source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference stands for now."""

    digest: str
    """Of the manifest (registry), or the image's id (Docker Engine)."""
    config: ImageConfig
    layers: tuple[Layer, ...]
    """The bottom layer first; their sizes are not known yet."""


class Reporter(Protocol):
    """Hears how a build gets on. What it hears may be dropped."""

    def progress(self, *, stage: str, layer: str, done: int, total: int) -> None:
        """Bytes done of one layer; 0 in all where it is not known."""

    def output(self, line: str) -> None:
        """A line of the Docker Engine's output."""


class Source(Protocol):
    """A container image that somebody asked for. The methods are called in this order, once."""

    async def resolve(self) -> Resolved | None:
        """Finds out what it is; None where that takes `build`."""

    async def build(self) -> Resolved:
        """Makes the container image, where it is a Dockerfile."""

    async def convert(self, maker: LayerMaker) -> tuple[Layer, ...]:
        """Brings all its layers into the store."""

    async def close(self) -> None:
        """Gives back what it holds."""
