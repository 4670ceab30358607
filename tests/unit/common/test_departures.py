"""What is done of a deleted user, when, and of what time things have to be for it."""

from __future__ import annotations

import pytest

from uhm_common.departures import AGAIN_SECONDS, SETTLED_SECONDS, Departures
from uhm_common.errors import FailedPrecondition
from uhm_common.subscription import Later

DELETED_AT = 1_000_000
REFUSED, SETTLED = SETTLED_SECONDS
GONE = {"username": "anna", "deleted_at": DELETED_AT}


class Belongings:
    """Says what it was asked to delete, and fails as often as it is told to."""

    def __init__(self):
        self.asked = []
        self.error = None

    async def delete_all(self, *, owner, before):
        self.asked.append((owner, before))
        if self.error is not None:
            raise self.error


@pytest.fixture
def belongings():
    return Belongings()


@pytest.fixture
def handle(belongings):
    """Handles an event so many seconds after the deletion; answers after how many it is to come again, if it is."""

    async def handle(seconds, payload=GONE):
        try:
            await Departures(belongings, clock=lambda: DELETED_AT + seconds).handle("uhm.users.deleted", payload)
        except Later as later:
            return later.seconds
        return None

    return handle


@pytest.mark.parametrize(
    ("seconds", "again"),
    [
        (0.0, REFUSED),
        (REFUSED - 1, 1.0),
        (REFUSED, SETTLED - REFUSED),
        (SETTLED - 1, 1.0),
        (SETTLED, None),
        (10.0**8, None),
    ],
)
async def test_it_is_done_each_time_until_nothing_more_can_come(handle, belongings, seconds, again):
    assert await handle(seconds) == again
    assert belongings.asked == [("anna", int((DELETED_AT + SETTLED) * 1e9))]


async def test_what_has_to_stay_is_deleted_later(handle, belongings):
    belongings.error = FailedPrecondition("A machine has the image.")
    assert await handle(SETTLED) == AGAIN_SECONDS
    belongings.error = None
    assert await handle(SETTLED + AGAIN_SECONDS) is None


async def test_what_nobody_expected_is_raised(handle, belongings):
    belongings.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await handle(SETTLED)


@pytest.mark.parametrize("change", [{"username": None}, {"username": ""}, {"deleted_at": None}, {"deleted_at": "1"}])
async def test_an_event_that_does_not_say_who_and_when_is_passed_over(handle, belongings, change):
    assert await handle(0.0, GONE | change) is None
    assert belongings.asked == []
