"""Views: appliances that have an image's layers mounted, out of a pool, for coroutines."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from uhm_builder.appliance import ApplianceLost, ApplianceTimeout, open_appliance
from uhm_builder.appliances import Appliances
from uhm_builder.disk import load_disk
from uhm_builder.errors import DamagedImage, TooMuchInside
from uhm_builder.inside.diff import compare, shared_bottom
from uhm_builder.inside.drive import layers_drive
from uhm_builder.inside.tree import LISTING_BYTES, Tree, mount_layers, mount_merged
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from uhm_builder.appliance import Appliance
    from uhm_builder.appliances import Bounds
    from uhm_builder.inside.diff import Change
    from uhm_common.artifacts import ArtifactStore

__all__ = ["Limits", "Views"]

Result = TypeVar("Result")
SIDES = ("/before", "/after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one appliance may take."""

    kvm: bool
    memory_mib: int
    seconds: float
    """For its launch and every use of it."""


class Views:
    """Opens views of disks; one launch serves many of them. `run` belongs into the background."""

    def __init__(self, store: ArtifactStore, *, limits: Limits, bounds: Bounds) -> None:
        self._store = store
        self._limits = limits
        self._pool: Appliances[Tree] = Appliances(bounds)
        self.run = self._pool.run

    async def ask(self, disk_digest: str, question: Callable[[Tree], Result]) -> Result:
        """Answers what a blocking function finds in the merged root of a disk, within the time of one use.

        Raises NotFound where the disk is gone, AppliancesBusy, DamagedImage, TooMuchInside where it took too long, and
        what the function raises.
        """
        async with self._used((disk_digest,), partial(self._launch, disk_digest)) as tree:
            return await in_thread(partial(question, tree))

    async def compare(self, before: str, after: str) -> list[Change]:
        """What changed from one disk to another. Raises as `ask` does."""
        if before == after:
            return []
        one, other = (load_disk(self._store, digest).layers for digest in (before, after))
        layers = list(dict.fromkeys([*one, *other]))
        points = {layer: f"/{number}" for number, layer in enumerate(layers, start=1)}
        shared = set(one[: shared_bottom(one, other)])
        question = partial(compare, sides=SIDES, unshared=[points[each] for each in layers if each not in shared])

        @contextmanager
        def launch() -> Iterator[Tree]:
            with self._mounted([self._store.layer(layer) for layer in layers]) as appliance:
                for side, own in zip(SIDES, (one, other), strict=True):
                    mount_merged(appliance, [points[layer] for layer in own], at=side)
                yield Tree(appliance)

        async with self._used((before, after), launch) as tree:
            return await in_thread(partial(question, tree))

    async def forget(self, disk_digest: str) -> None:
        """Ends the appliances that have a disk which is deleted, so that its space becomes free."""
        await self._pool.forget(lambda key: disk_digest in key)

    @asynccontextmanager
    async def _used(
        self, key: tuple[str, ...], launch: Callable[[], AbstractContextManager[Tree]]
    ) -> AsyncIterator[Tree]:
        """A tree out of the pool, its time running from now on."""
        with self._losses():
            async with self._pool.use(key, launch) as tree:
                tree.allow(self._limits.seconds)
                yield tree

    @contextmanager
    def _launch(self, disk_digest: str) -> Iterator[Tree]:
        """The root of a machine: base and layers merged."""
        disk = load_disk(self._store, disk_digest)
        blobs = [self._store.base(disk.base) / "base.erofs", *map(self._store.layer, disk.layers)]
        with self._mounted(blobs) as appliance:
            mount_merged(appliance, [f"/{number}" for number in range(1, len(blobs) + 1)])
            yield Tree(appliance)

    @contextmanager
    def _mounted(self, blobs: Sequence[Path]) -> Iterator[Appliance]:
        """An appliance with these blobs mounted at /1, /2 and so on."""
        limits = self._limits
        with (
            layers_drive(self._store, blobs) as drive,
            open_appliance(
                [drive],
                kvm=limits.kvm,
                seconds=limits.seconds,
                memory_mib=limits.memory_mib,
                output_bytes=LISTING_BYTES,
            ) as appliance,
        ):
            mount_layers(appliance, len(blobs))
            yield appliance

    @contextmanager
    def _losses(self) -> Iterator[None]:
        """An appliance that was lost, as what its user can understand."""
        try:
            yield
        except ApplianceTimeout as error:
            raise TooMuchInside(
                f"Looking into the image took longer than {self._limits.seconds:g} s, and was ended.",
                hint="Ask for less of it; UHM_APPLIANCE_SECONDS is the bound.",
            ) from error
        except ApplianceLost as error:
            raise DamagedImage(
                "The appliance that looked into the image has died of it: its file systems are damaged.",
                hint="Make the image again.",
            ) from error
