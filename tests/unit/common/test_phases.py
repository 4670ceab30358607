"""Phases that are shown to users."""

from __future__ import annotations

import time

import pytest

from uhm_common.phases import Stopwatch


def test_phases_follow_each_other():
    watch = Stopwatch()
    with watch.phase("resolve"):
        time.sleep(0.02)
    with watch.phase("convert") as convert:
        convert.bytes = 7

    resolve, convert = watch.phases
    assert (resolve.name, convert.name, convert.bytes) == ("resolve", "convert", 7)
    assert resolve.duration_ms >= 20
    assert convert.start_ms >= resolve.start_ms + resolve.duration_ms
    assert watch.elapsed_ms() >= convert.start_ms + convert.duration_ms


def test_a_phase_that_raises_is_recorded():
    watch = Stopwatch()

    def fail():
        with watch.phase("convert"):
            time.sleep(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert watch.phases[0].duration_ms >= 10


def test_phases_may_nest():
    watch = Stopwatch()
    with watch.phase("outer"), watch.phase("inner"):
        pass

    outer, inner = watch.phases
    assert outer.duration_ms >= inner.duration_ms
