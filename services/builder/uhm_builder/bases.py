"""The base of this worker: made once, in the background; builds wait for it before they compose."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_builder.base import Ingredients, make_base
from uhm_builder.errors import ConversionFailed
from uhm_common.errors import NotFound
from uhm_common.logs import get_logger
from uhm_common.phases import Stopwatch

if TYPE_CHECKING:
    from uhm_builder.base import Base
    from uhm_builder.settings import BuilderSettings
    from uhm_common.artifacts import ArtifactStore

__all__ = ["BaseKeeper"]

log = get_logger()


class BaseKeeper:
    """Makes the base, once; where that failed, the next one who asks tries again."""

    def __init__(self, store: ArtifactStore, settings: BuilderSettings) -> None:
        self._store = store
        self._settings = settings
        self._making: asyncio.Task[Base] | None = None
        self._held = ExitStack()

    @property
    def made(self) -> Base | None:
        """The base, where it is there."""
        task = self._making
        there = task is not None and task.done() and not task.cancelled() and task.exception() is None
        return task.result() if task is not None and there else None

    async def get(self) -> Base:
        """The base. Raises what makes it impossible."""
        if self._making is None or (self._making.done() and self.made is None):
            self._making = asyncio.create_task(self._make())
        return await asyncio.shield(self._making)

    def close(self) -> None:
        """Lets others delete the base, where nothing needs it."""
        self._held.close()

    async def _make(self) -> Base:
        mkfs = shutil.which(self._settings.mkfs_erofs)
        if mkfs is None:
            raise ConversionFailed(f"{self._settings.mkfs_erofs} is not installed.", hint="`make setup` builds it.")
        settings = self._settings
        ingredients = Ingredients(
            init=settings.guest_init,
            mkfs_erofs=Path(mkfs),
            kernel=settings.guest_kernel,
            portable_kernel=settings.guest_portable_kernel,
            portable=settings.guest_portable,
        )
        watch = Stopwatch()
        base = await asyncio.to_thread(partial(self._made_and_held, ingredients))
        log.info("base.there", digest=base.digest, ms=round(watch.elapsed_ms()))
        return base

    def _made_and_held(self, ingredients: Ingredients) -> Base:
        """The base, which nobody deletes until `close`: it may be one that no image has yet."""
        while True:
            base = make_base(self._store, ingredients, kvm=self._settings.kvm)
            with suppress(NotFound):  # deleted right before it was held
                self._held.enter_context(self._store.using_base(base.digest))
                return base
