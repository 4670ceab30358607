"""The machines of a deleted user go, also those that were made at the last moment."""

from __future__ import annotations

import pytest

from uhm_machines.departures import Departures


class Service:
    """Says what it was asked to delete."""

    def __init__(self):
        self.told = []

    async def delete_all(self, *, owner):
        self.told.append(owner)


@pytest.fixture
def machines():
    return Service()


@pytest.fixture
def idempotency_keys():
    return Service()


@pytest.fixture
def departures(machines, idempotency_keys):
    return Departures(machines, idempotency_keys=idempotency_keys, settle_seconds=0)


async def test_a_user_is_forgotten_twice_since_calls_may_have_been_under_way(departures, machines, idempotency_keys):
    await departures.handle("uhm.users.deleted", {"username": "anna"})

    assert machines.told == ["anna", "anna"]
    assert idempotency_keys.told == ["anna"]


@pytest.mark.parametrize("payload", [{}, {"username": None}, {"username": ["anna"]}])
async def test_an_event_that_names_nobody_is_passed_over(departures, machines, payload):
    await departures.handle("uhm.users.deleted", payload)

    assert machines.told == []
