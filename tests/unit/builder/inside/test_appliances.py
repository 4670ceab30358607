"""The pool, with things in it that take no time to launch."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager

import pytest

from uhm_builder.appliance import ApplianceFailed, ApplianceLost
from uhm_builder.appliances import Appliances, Bounds
from uhm_builder.errors import AppliancesBusy

A, B, C = ("a",), ("b",), ("c",)


class Launches:
    """Launches a text for each key; knows what lives."""

    def __init__(self):
        self.launched: list[tuple[str, ...]] = []
        self.living: list[tuple[str, ...]] = []
        self.error: Exception | None = None

    def of(self, key):
        @contextmanager
        def launch():
            if self.error:
                raise self.error
            self.launched.append(key)
            self.living.append(key)
            try:
                yield f"lent {key[0]}"
            finally:
                self.living.remove(key)

        return launch


@pytest.fixture
def launches():
    return Launches()


@asynccontextmanager
async def pool(**bounds):
    pool = Appliances(Bounds(**({"at_once": 2, "patience_seconds": 5, "idle_seconds": 60} | bounds)))
    running = asyncio.create_task(pool.run())
    await asyncio.sleep(0)
    try:
        yield pool
    finally:
        running.cancel()
        await asyncio.wait([running])


async def use(appliances, launches, key, work=lambda _lent: None):
    async with appliances.use(key, launches.of(key)) as lent:
        work(lent)
        return lent


async def test_what_was_launched_serves_again_and_all_ends_with_the_pool(launches):
    async with pool() as appliances:
        assert [await use(appliances, launches, A) for _ in range(3)] == ["lent a"] * 3
        assert (launches.launched, launches.living) == ([A], [A])
    assert launches.living == []


async def test_the_one_that_was_idle_longest_makes_room(launches):
    async with pool() as appliances:
        for key in (A, B, A, C):
            await use(appliances, launches, key)
        assert launches.living == [A, C]
        await use(appliances, launches, A)
        assert launches.launched == [A, B, C]


async def test_no_more_live_at_once_than_allowed_and_others_wait_their_turn(launches):
    async with pool(at_once=1) as appliances:

        async def hold(key):
            async with appliances.use(key, launches.of(key)):
                assert launches.living == [key]
                await asyncio.sleep(0.01)

        await asyncio.gather(*(hold(key) for key in (A, B, C, A, B, C)))


async def test_the_queue_has_bounds(launches):
    async with pool(at_once=1, waiting=1, patience_seconds=0.2) as appliances, appliances.use(A, launches.of(A)):
        waiting = asyncio.create_task(use(appliances, launches, B))
        await asyncio.sleep(0.05)
        with pytest.raises(AppliancesBusy, match=r"1 others wait already.*UHM_APPLIANCES"):
            await use(appliances, launches, C)
        with pytest.raises(AppliancesBusy, match=r"within 0\.2 s"):
            await waiting


@pytest.mark.parametrize(("error", "living"), [(ApplianceLost("dead"), []), (ApplianceFailed("no such file"), [A])])
async def test_only_what_was_lost_is_not_lent_again(launches, error, living):
    def work(_lent):
        raise error

    async with pool() as appliances:
        with pytest.raises(type(error)):
            await use(appliances, launches, A, work)
        assert launches.living == living


async def test_a_launch_that_fails_leaves_its_place(launches):
    async with pool(at_once=1) as appliances:
        launches.error = ApplianceFailed("no")
        for key in (A, B):
            with pytest.raises(ApplianceFailed):
                await use(appliances, launches, key)
        launches.error = None
        assert await use(appliances, launches, C) == "lent c"


async def test_a_user_who_gives_up_leaves_its_place(launches):
    async with pool(at_once=1) as appliances:
        async with appliances.use(A, launches.of(A)):
            waiting = asyncio.create_task(use(appliances, launches, B))
            await asyncio.sleep(0.01)
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await use(appliances, launches, C) == "lent c"


async def test_what_is_idle_for_long_ends(launches):
    async with pool(idle_seconds=0.1) as appliances:
        await use(appliances, launches, A)
        await asyncio.sleep(0.5)
        assert launches.living == []


async def test_what_is_forgotten_ends_at_once_or_after_its_use(launches):
    async with pool() as appliances:
        await use(appliances, launches, A)
        async with appliances.use(B, launches.of(B)):
            await appliances.forget(lambda key: key in {A, B})
            assert launches.living == [B]
        assert launches.living == []
