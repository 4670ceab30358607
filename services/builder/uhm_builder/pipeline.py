"""The stages of a build, in order, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from uhm_builder.disk import compose, disk_digest
from uhm_builder.images import StageName
from uhm_builder.threads import entered, in_thread

if TYPE_CHECKING:
    from uhm_builder.base import Base
    from uhm_builder.images import ImageConfig, Layer
    from uhm_builder.journal import Journal
    from uhm_builder.layers import LayerMaker
    from uhm_builder.sources.source import Source
    from uhm_common.artifacts import ArtifactStore

__all__ = ["Made", "Pipeline"]


class Bases(Protocol):
    """Where the base comes from."""

    @property
    def made(self) -> Base | None:
        """The base, where it is there."""

    async def get(self) -> Base:
        """The base, made if absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a build that went well has come to."""

    digest: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    disk_digest: str
    reference: str = ""
    """The image's name, where its wish had none."""


class Pipeline:
    """Makes a disk out of a source."""

    def __init__(self, *, artifacts: ArtifactStore, maker: LayerMaker, bases: Bases) -> None:
        self._artifacts = artifacts
        self._maker = maker
        self._bases = bases

    async def run(self, source: Source, journal: Journal) -> Made:
        """Runs the stages. Raises UhmError with the reason for the user."""
        async with journal.stage(StageName.RESOLVE):
            resolved = await source.resolve()
            journal.layers = () if isinstance(resolved, StageName) else resolved.layers
        if isinstance(resolved, StageName):
            async with journal.stage(resolved):
                resolved = await source.build()
                journal.layers = resolved.layers
        await self._noted()
        async with journal.stage(StageName.CONVERT) as phase:
            layers = await source.convert(self._maker)
            phase.bytes = sum(layer.size for layer in layers if not layer.reused)
            journal.layers = layers
        base = self._bases.made
        if base is None:  # only the first builds of an installation wait for it
            async with journal.stage(StageName.BASE):
                base = await self._bases.get()
        async with journal.stage(StageName.COMPOSE):
            diff_ids = [layer.diff_id for layer in layers]
            await journal.record_disk(disk_digest(base.digest, diff_ids))  # `compose` holds the lock as it looks
            disk = await in_thread(partial(compose, self._artifacts, base, diff_ids))
        return Made(
            digest=resolved.digest,
            config=resolved.config,
            layers=layers,
            disk_digest=disk.digest,
            reference=resolved.reference,
        )

    async def _noted(self) -> None:
        """The row names the layers: a collection that has not seen that is over, and all later ones spare them."""
        async with entered(self._artifacts.disks(exclusive=False)):
            pass
