"""Rates by key."""

from __future__ import annotations

import pytest

from uhm_gateway.limits.rate import Buckets, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_and_then_the_rate(clock: Clock) -> None:
    buckets = Buckets(Rate(per_second=2, burst=3), clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now += 0.25
    assert buckets.take("a") == 0.25
    clock.now += 0.25
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]


def test_keys_have_buckets_of_their_own(clock: Clock) -> None:
    buckets = Buckets(Rate(per_second=1, burst=1), clock=clock)
    assert [buckets.take("a"), buckets.take("b"), buckets.take("a")] == [0, 0, 1]


def test_refusals_cost_nothing(clock: Clock) -> None:
    buckets = Buckets(Rate(per_second=1, burst=1), clock=clock)
    assert [buckets.take("a") for _ in range(10)] == [0, *[1] * 9]
    clock.now += 1
    assert buckets.take("a") == 0


def test_in_the_long_run_it_is_the_rate(clock: Clock) -> None:
    buckets = Buckets(Rate(per_second=3, burst=5), clock=clock)
    taken = 0
    for _ in range(1000):
        taken += not buckets.take("a")
        clock.now += 0.1
    assert abs(taken - (5 + 3 * 100)) <= 1


def test_a_rate_of_0_is_none() -> None:
    buckets = Buckets(Rate(per_second=0, burst=0))
    assert {buckets.take("a") for _ in range(1000)} == {0}
    assert len(buckets) == 0


def test_full_buckets_are_forgotten(clock: Clock) -> None:
    buckets = Buckets(Rate(per_second=10, burst=10), clock=clock)
    for number in range(100):
        buckets.take(f"old {number}")
    clock.now += 60
    for number in range(100):
        buckets.take(f"new {number}")
    assert len(buckets) == 100


def test_no_more_are_kept_than_may_be(clock: Clock) -> None:
    buckets = Buckets(Rate(per_second=0.001, burst=1), kept=10, clock=clock)
    for number in range(1000):
        assert buckets.take(str(number)) == 0
    assert len(buckets) == 10
    assert buckets.take("999") > 0
