"""How many calls may be under way."""

from __future__ import annotations

from contextlib import ExitStack

import grpc
import pytest

from uhm_gateway.limits.slots import Overloaded, Slots


def test_what_is_over_the_whole_is_refused_until_one_ends() -> None:
    slots = Slots(2, kind="calls")
    with slots.take((("a", 1),)):
        with slots.take((("b", 1),)):
            with pytest.raises(Overloaded, match="2 calls under way") as refusal:
                slots.take((("c", 1),))
            assert (refusal.value.code, refusal.value.retry_after) == (grpc.StatusCode.UNAVAILABLE, 1)
        with slots.take((("c", 1),)):
            assert slots.taken == 2
    assert slots.taken == 0


def test_no_key_has_more_than_its_share() -> None:
    slots = Slots(10, kind="streams")
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(slots.take((("auth", 1), ("user ada", 0.5))))
        with pytest.raises(Overloaded, match="5 streams of user ada"):
            slots.take((("auth", 1), ("user ada", 0.5)))
        assert slots.taken == 5
        for _ in range(5):
            stack.enter_context(slots.take((("auth", 1), ("user bob", 0.5))))
    assert slots.taken == 0
    slots.take((("auth", 0.1), ("user ada", 0.1)))


@pytest.mark.parametrize(("most", "share", "expected"), [(10, 0.5, 5), (10, 0.79, 7), (3, 0.1, 1), (1, 1, 1)])
def test_a_share_is_one_at_least(most: int, share: float, expected: int) -> None:
    assert Slots(most, kind="calls").share(share) == expected


def test_an_error_gives_the_slot_back() -> None:
    slots = Slots(1, kind="calls")
    with pytest.raises(KeyError), slots.take((("a", 1),)):
        raise KeyError
    assert slots.taken == 0
