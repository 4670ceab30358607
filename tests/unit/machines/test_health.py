from dataclasses import replace
from itertools import count

import pytest

from tests.unit.machines.stand_ins import HUNG, StandInGuest, StandInRunning, a_service
from uhm_machines.errors import GuestFailed
from uhm_machines.images import Healthcheck
from uhm_machines.snapshots import health
from uhm_machines.snapshots.health import wait_until_serving

CHECK = Healthcheck(
    command=("/bin/sh", "-c", "up"), interval_ns=0, timeout_ns=1_500_000_000, start_period_ns=0, retries=0
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    for name, seconds in {"_CHECK_SECONDS": 0.001, "_REST_SECONDS": 0.001, "_MOST_RESTLESS_SECONDS": 5.0}.items():
        monkeypatch.setattr(health, name, seconds)


async def served(guest, *, check=None):
    await wait_until_serving(StandInRunning(None, guest=guest), a_service(healthcheck=check))
    return guest


async def test_without_a_check_its_ports_tell():
    assert (await served(StandInGuest())).told == ["ready"]
    with pytest.raises(GuestFailed, match="so far"):
        await served(StandInGuest(ready=HUNG))


async def test_a_check_is_repeated_until_it_succeeds():
    guest = await served(StandInGuest(checked=["1", "124", "0"]), check=CHECK)
    assert guest.told == ["check", "checked"] * 3
    assert set(guest.heard) == {("check", b"arg\0/bin/sh\0arg\0-c\0arg\0up\0timeout\x001500\0")}


@pytest.mark.parametrize(
    ("check", "least", "said"),
    [
        (replace(CHECK, timeout_ns=0), 0.02, "did not succeed in 0.02 s; it ended with 1"),
        (replace(CHECK, timeout_ns=40_000_000), 0.02, "did not succeed in 0.04 s; it ended with 1"),
        (
            replace(CHECK, interval_ns=10_000_000, timeout_ns=5_000_000, start_period_ns=5_000_000, retries=3), 0,
            "did not succeed in 0.05 s",
        ),
    ],
)  # fmt: skip
async def test_a_check_that_never_succeeds_is_given_up_when_docker_would(monkeypatch, check, least, said):
    monkeypatch.setattr(health, "_LEAST_HEALTH_SECONDS", least)
    with pytest.raises(GuestFailed, match=said):
        await served(StandInGuest(checked="1"), check=check)


async def test_a_machine_that_works_is_waited_for(monkeypatch):
    spent = iter([0, 1, 1, 2, 2, 2])
    monkeypatch.setattr(health, "cpu_seconds", lambda _pid: next(spent))
    await served(StandInGuest())
    assert list(spent) == []


async def test_one_that_never_rests_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr(health, "_MOST_RESTLESS_SECONDS", 0.05)
    spent = count()
    monkeypatch.setattr(health, "cpu_seconds", lambda _pid: next(spent))
    await served(StandInGuest())
    assert next(spent) > 2
