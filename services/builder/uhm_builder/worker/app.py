"""The wiring of a worker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.app import open_parts
from uhm_builder.bases import BaseKeeper
from uhm_builder.layers import LayerMaker
from uhm_builder.pipeline import Pipeline
from uhm_builder.sources.challenge import load_credentials
from uhm_builder.sources.chooser import Sources
from uhm_builder.sources.registry import RegistryClient
from uhm_builder.worker.build import Builder
from uhm_builder.worker.consumer import Bounds, BuildConsumer
from uhm_builder.worker.upkeep import Upkeep
from uhm_common.bootstrap import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from uhm_builder.settings import BuilderSettings

__all__ = ["make_worker", "run"]

THREADS_PER_BUILD = 4
"""A build with the Docker Engine keeps one thread waiting; others are for its layers, and for the base."""
WORKER_ADDRESS = "127.0.0.1:50072"


async def run(settings: BuilderSettings) -> None:
    """Works until told to stop; then hands back what it has begun."""
    async with make_worker(settings) as server:
        await server.serve()


@asynccontextmanager
async def make_worker(settings: BuilderSettings) -> AsyncIterator[Server]:
    """A worker as a server of nothing but health, so that whoever started it sees when it is ready."""
    threads = ThreadPoolExecutor(THREADS_PER_BUILD * settings.parallel_builds + settings.parallel_layers)
    asyncio.get_running_loop().set_default_executor(threads)
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings, name="builder-worker"))
        registry = RegistryClient(
            mirrors=settings.registry_mirrors, credentials=load_credentials(settings.registry_auth_file)
        )
        stack.push_async_callback(registry.close)
        bases = BaseKeeper(parts.artifacts, settings)
        maker = LayerMaker(
            parts.artifacts,
            mkfs=settings.mkfs_erofs,
            max_bytes=settings.max_layer_bytes,
            parallel=settings.parallel_layers,
        )
        builder = Builder(
            artifacts=parts.artifacts,
            database=parts.database,
            store=parts.store,
            outbox=parts.outbox,
            events=parts.events,
            contexts=parts.contexts,
            sources=Sources(settings, registry=registry, contexts=parts.contexts),
            pipeline=Pipeline(artifacts=parts.artifacts, maker=maker, bases=bases),
        )
        upkeep = Upkeep(parts=parts, bases=bases, lost_after_seconds=settings.lost_after_seconds)
        consumer = BuildConsumer(
            events=parts.events,
            store=parts.store,
            builder=builder,
            bounds=Bounds(
                parallel=settings.parallel_builds,
                ack_wait_seconds=settings.ack_wait_seconds,
                max_attempts=settings.max_attempts,
            ),
            idle=upkeep.idle,
        )
        yield Server(
            listen=settings.listen or WORKER_ADDRESS,
            services=[],
            add=lambda _server: None,
            background=[partial(_work, consumer.run, beside=(parts.events.run, parts.outbox.run, upkeep.run))],
        )


async def _work(
    consume: Callable[[], Coroutine[Any, Any, None]], *, beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
) -> None:
    """Consumes, with others beside it that outlive it: builds are handed back over a connection that is still there."""
    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(other()) for other in beside]
        try:
            await consume()
        finally:
            for other in others:
                other.cancel()
