import pytest

from uhm_machines.states import ENDED, LIVE, TRANSITIONS, Status, may_follow

CREATED, STARTING, RUNNING, STOPPING, EXITED, FAILED = Status


@pytest.mark.parametrize(
    ("status", "next_ones"),
    [
        (CREATED, {STARTING, FAILED}),
        (STARTING, {RUNNING, STOPPING, EXITED, FAILED}),
        (RUNNING, {STOPPING, EXITED, FAILED}),
        (STOPPING, {EXITED, FAILED}),
        (EXITED, {STARTING}),
        (FAILED, {STARTING}),
    ],
)
def test_what_follows_what(status, next_ones):
    assert {other for other in Status if may_follow(other, on=status)} == next_ones | {status}


def test_every_status_is_in_the_table():
    assert set(TRANSITIONS) == set(Status)
    assert {CREATED} | LIVE | ENDED == set(Status)
    assert not LIVE & ENDED
