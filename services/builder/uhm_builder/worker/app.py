"""The wiring of a worker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.bases import BaseKeeper
from uhm_builder.export.exporter import Exporter
from uhm_builder.inside.views import Views
from uhm_builder.layers import LayerMaker
from uhm_builder.outputs import Outputs
from uhm_builder.parts import open_parts
from uhm_builder.pipeline import Pipeline
from uhm_builder.secrets import SecretRequests
from uhm_builder.sources.chooser import Sources
from uhm_builder.storage.publisher import Publisher
from uhm_builder.storage.upkeep import PublicationUpkeep
from uhm_builder.worker.build import Builder
from uhm_builder.worker.consumer import Bounds, Consumer, Queue, Work
from uhm_builder.worker.upkeep import Upkeep
from uhm_common.bootstrap import Server
from uhm_common.events import (
    BUILDS_REQUESTED,
    BUILDS_STREAM,
    PUBLICATIONS_REQUESTED,
    PUBLICATIONS_STREAM,
    cancel_subject,
    publication_cancel_subject,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from uhm_builder.parts import Parts
    from uhm_builder.settings import BuilderSettings
    from uhm_builder.storage.publications import Publication

__all__ = ["make_worker", "run"]

THREADS_PER_BUILD = 4
"""A build with the Docker Engine keeps one thread waiting; others are for its layers, and for the base."""
THREADS_PER_PUBLICATION = 4
WORKER_ADDRESS = "127.0.0.1:50072"
BUILDS = Queue(stream=BUILDS_STREAM, subject=BUILDS_REQUESTED, durable="builders", cancel_subjects=cancel_subject("*"))
PUBLICATIONS = Queue(
    stream=PUBLICATIONS_STREAM,
    subject=PUBLICATIONS_REQUESTED,
    durable="publishers",
    cancel_subjects=publication_cancel_subject("*"),
)


async def run(settings: BuilderSettings) -> None:
    """Works until told to stop; then hands back what it has begun."""
    async with make_worker(settings) as server:
        await server.serve()


@asynccontextmanager
async def make_worker(settings: BuilderSettings) -> AsyncIterator[Server]:
    """A worker as a server of nothing but health, so that whoever started it sees when it is ready."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_threads(settings)))
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings, name="builder-worker"))
        bases = BaseKeeper(parts.artifacts, settings)
        stack.callback(bases.close)
        maker = LayerMaker(
            parts.artifacts,
            mkfs=settings.mkfs_erofs,
            max_bytes=settings.max_layer_bytes,
            max_entries=settings.max_layer_entries,
            parallel=settings.parallel_layers,
        )
        views = Views(parts.artifacts, limits=settings.appliance_limits, bounds=settings.appliance_bounds)
        builder = Builder(
            database=parts.database,
            store=parts.store,
            outbox=parts.outbox,
            events=parts.events,
            outputs=Outputs(parts.database),
            sources=Sources(
                settings,
                registries=parts.registries,
                clients=parts.registry_clients,
                contexts=parts.contexts,
                secrets=SecretRequests(parts.events),
                images=parts.store,
                views=views,
                locations=parts.locations,
            ),
            pipeline=Pipeline(artifacts=parts.artifacts, maker=maker, bases=bases),
            quotas=parts.quotas,
            publications=parts.publications,
        )
        upkeep = Upkeep(parts=parts, bases=bases, lost_after_seconds=settings.lost_after_seconds)
        builds = Consumer(
            BUILDS,
            events=parts.events,
            store=parts.store,
            work=Work(run=builder.build, fail=builder.fail, idle=upkeep.idle),
            bounds=Bounds(
                parallel=settings.parallel_builds,
                ack_wait_seconds=settings.ack_wait_seconds,
                max_attempts=settings.max_attempts,
            ),
        )
        publications, publication_upkeep = _publishing(parts, settings)
        beside = (parts.events.run, parts.outbox.run, views.run, upkeep.run, publication_upkeep.run)
        yield Server(
            listen=settings.listen or WORKER_ADDRESS,
            services=[],
            add=lambda _server: None,
            background=[partial(_work, (builds.run, publications.run), beside=beside)],
        )


def _threads(settings: BuilderSettings) -> int:
    """As many as may be at work at once."""
    return (
        THREADS_PER_BUILD * settings.parallel_builds
        + settings.parallel_layers
        + THREADS_PER_PUBLICATION * settings.parallel_publications
    )


def _publishing(parts: Parts, settings: BuilderSettings) -> tuple[Consumer[Publication], PublicationUpkeep]:
    """What takes publications from their queue, and what tidies up after them."""
    publisher = Publisher(
        artifacts=parts.artifacts,
        images=parts.store,
        publications=parts.publications,
        locations=parts.locations,
        exporter=Exporter(artifacts=parts.artifacts, kvm=settings.kvm, parallel=settings.parallel_publications),
        events=parts.events,
        max_attempts=settings.publication_attempts,
    )
    upkeep = PublicationUpkeep(
        artifacts=parts.artifacts,
        database=parts.database,
        publications=parts.publications,
        publisher=publisher,
        outbox=parts.outbox,
        events=parts.events,
        lost_after_seconds=settings.lost_after_seconds,
    )
    consumer = Consumer(
        PUBLICATIONS,
        events=parts.events,
        store=parts.publications,
        work=Work(run=publisher.publish, fail=publisher.fail, idle=upkeep.tidy),
        bounds=Bounds(
            parallel=settings.parallel_publications,
            ack_wait_seconds=settings.ack_wait_seconds,
            max_attempts=settings.publication_attempts,
        ),
    )
    return consumer, upkeep


async def _work(
    consumers: tuple[Callable[[], Coroutine[Any, Any, None]], ...],
    *,
    beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...],
) -> None:
    """Consumes, with others beside it that outlive it: tasks are handed back over a connection that is still there."""
    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(other()) for other in beside]
        try:
            async with asyncio.TaskGroup() as consuming:
                for consume in consumers:
                    consuming.create_task(consume())
        finally:
            for other in others:
                other.cancel()
