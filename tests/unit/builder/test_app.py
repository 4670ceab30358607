"""The wiring of the API and of a worker: who opens appliances also ends them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager

import pytest

from uhm_builder.app import make_server
from uhm_builder.appliances import Appliances
from uhm_builder.inside import views
from uhm_builder.settings import BuilderSettings
from uhm_builder.worker.app import make_worker

KEY = ("disk",)


@pytest.fixture(params=[make_server, make_worker])
def system(request, monkeypatch, tmp_path):
    """Runs the background of one of them, without NATS and without a base; its pool of appliances."""
    pools = []

    class Seen(Appliances):
        def __init__(self, bounds):
            super().__init__(bounds)
            pools.append(self)

    monkeypatch.setattr(views, "Appliances", Seen)

    @asynccontextmanager
    async def running(**given):
        settings = BuilderSettings(
            state_dir=tmp_path, nats_url="nats://127.0.0.1:1", mkfs_erofs=str(tmp_path / "absent"), **given
        )
        async with request.param(settings) as server:
            background = [asyncio.create_task(work()) for work in server.background]
            try:
                yield pools[0]
            finally:
                for task in background:
                    task.cancel()
                await asyncio.wait(background)

    return running


@pytest.fixture
def ended():
    return threading.Event()


@pytest.fixture
def launch(ended):
    """Launches what takes no time to."""

    @contextmanager
    def launch():
        try:
            yield "lent"
        finally:
            ended.set()

    return launch


async def test_an_idle_appliance_ends(system, launch, ended):
    async with system(appliance_idle_seconds=0.2) as appliances:
        async with appliances.use(KEY, launch):
            assert not ended.is_set()
        assert await asyncio.to_thread(ended.wait, 10)


async def test_an_appliance_ends_with_the_process_that_opened_it(system, launch, ended):
    async with system(appliance_idle_seconds=600) as appliances:
        async with appliances.use(KEY, launch):
            pass
        assert not ended.is_set()
    assert ended.is_set()
