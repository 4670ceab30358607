"""The targets of the fuzzer, for a moment each and without it: `make fuzz` is the same with coverage as its guide."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, signed, verified
from uhm_common.callers.verifier import ACCESS

PIECES = 8


@st.composite
def mutations(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with some pieces of it replaced, dropped or doubled."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, PIECES))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + PIECES)))
        data = data[:start] + draw(st.binary(max_size=PIECES) | st.just(data[start:end] * 2)) + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


def test_tokens_are_accepted_too():
    """Or what is promised of accepted ones would never be looked at."""
    header, _, claims = TARGETS["token"].seeds[0].partition(b"\0")
    assert verified(signed(header, claims), kind=ACCESS) is not None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", TARGETS)
def test_for_a_moment(name):
    @settings(max_examples=400, suppress_health_check=list(HealthCheck))
    @given(mutations(TARGETS[name].seeds) | st.binary(max_size=64))
    def run(data: bytes) -> None:
        TARGETS[name].run(data)

    run()
