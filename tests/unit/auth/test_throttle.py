"""How guesses are slowed, and whom that must not hit."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from google.rpc import error_details_pb2
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from uhm_auth.audit import AuditLog
from uhm_auth.errors import TooManyAttempts, TooManyPasswords, WrongCredentials
from uhm_auth.models import AuditEventRow, FailureRow
from uhm_auth.stores.failures import FailureStore
from uhm_auth.throttle import Limit, Limits, Throttle, network
from uhm_common.callers.calls import Call, set_current_call

MINUTE, DAY = 60, 24 * 3600
LIMITS = Limits(hold_seconds=0)


class Hand:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def make(database, hand):
    """Makes throttles, which share the database as replicas do."""

    def make(**changes) -> Throttle:
        limits = replace(LIMITS, **changes)
        return Throttle(FailureStore(database), AuditLog(database), limits=limits, key=b"k" * 32, clock=hand)

    return make


@pytest.fixture
def throttle(make) -> Throttle:
    return make()


async def guess(throttle, username="ann", *, address="192.0.2.1", right=False) -> None:
    set_current_call(Call(address=address))
    with suppress(WrongCredentials):
        async with throttle.attempt(username):
            if not right:
                raise WrongCredentials("Wrong.")


async def admitted(throttle, count, username="ann", **where) -> int:
    """How many of so many attempts were let through; none of them was right."""
    let = 0
    for _ in range(count):
        try:
            await guess(throttle, username, **where)
            let += 1
        except TooManyAttempts:
            pass
    return let


async def wait_told(throttle, username="ann", **where) -> float:
    with pytest.raises(TooManyAttempts) as caught:
        await guess(throttle, username, **where)
    return caught.value.retry_after


async def rows(database, column):
    async with database.read() as session:
        return list(await session.scalars(select(column)))


async def test_each_failure_past_the_free_ones_doubles_the_wait(throttle, hand):
    assert await admitted(throttle, 5) == 5
    waits = []
    for _ in range(10):
        waits.append(await wait_told(throttle))
        hand.now += waits[-1]
        await guess(throttle)
    assert waits == [pytest.approx(wait, abs=0.01) for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]


async def test_how_many_guesses_a_day_patience_buys(throttle, hand):
    """NIST SP 800-63B, 5.2.2, wants no more than 100 failures in a row; what leaks out of a full bucket is 96 a day."""
    await admitted(throttle, 5)
    began, guesses = hand.now, 5
    while hand.now < began + DAY:
        hand.now += await wait_told(throttle)
        await guess(throttle)
        guesses += 1
    assert 96 <= guesses <= 120


async def test_what_is_refused_does_not_count(throttle, hand):
    await admitted(throttle, 5)
    assert await admitted(throttle, 50) == 0
    hand.now += 1
    await guess(throttle)


async def test_a_status_says_when_to_come_again(throttle):
    await admitted(throttle, 5)
    with pytest.raises(TooManyAttempts, match="Try again in 1 s") as caught:
        await guess(throttle)
    retry = error_details_pb2.RetryInfo()
    assert caught.value.to_status().details[1].Unpack(retry)
    assert retry.retry_delay.ToSeconds() == 1


async def test_a_hundred_guesses_at_one_moment_are_a_hundred_guesses(make):
    """Counted before the password is looked at, over replicas too."""
    replicas, inside = [make(), make()], []
    done = asyncio.Event()

    async def slow_guess(number):
        async with replicas[number % 2].attempt("ann"):
            inside.append(number)
            if len(inside) == 5:
                done.set()
            await done.wait()
            raise WrongCredentials("Wrong.")

    answers = await asyncio.gather(*(slow_guess(number) for number in range(100)), return_exceptions=True)

    assert len(inside) == 5
    assert {type(answer) for answer in answers} == {WrongCredentials, TooManyAttempts}


async def test_success_empties_the_bucket_of_the_pair(throttle):
    for _ in range(3):
        await admitted(throttle, 4)
        await guess(throttle, right=True)
    assert await admitted(throttle, 10) == 5


async def test_success_does_not_empty_the_bucket_of_the_address(make):
    throttle = make(address=replace(LIMITS.address, free=10))
    let = 0
    for number in range(30):
        let += await admitted(throttle, 1, f"user{number}")
        await guess(throttle, "attacker", right=True) if number == 0 else None
    assert let == 10


async def test_waits_end_as_failures_are_forgotten(throttle, hand):
    await admitted(throttle, 5)
    hand.now += 5 * LIMITS.pair.leak_seconds
    assert await admitted(throttle, 10) == 5


@pytest.mark.parametrize(
    ("kind", "attempt"),
    [
        ("pair", lambda _: {"username": "ann", "address": "192.0.2.1"}),
        ("username", lambda number: {"username": "ann", "address": f"192.0.2.{number}"}),
        ("address", lambda number: {"username": f"user{number}", "address": "192.0.2.1"}),
        ("everywhere", lambda number: {"username": f"user{number}", "address": f"192.0.2.{number}"}),
    ],
)
async def test_each_bucket_by_itself(make, database, kind, attempt):
    small = Limit(free=3, leak_seconds=MINUTE, first_seconds=1, longest_seconds=MINUTE)
    throttle = make(**{kind: small})
    assert sum([await admitted(throttle, 1, **attempt(number)) for number in range(9)]) == 3
    assert set(await rows(database, AuditEventRow.event)) == {"login.limited"}
    assert f'"by": "{kind}"' in (await rows(database, AuditEventRow.details))[0]


async def test_nobody_locks_out_who_has_logged_in_from_here_before(make, hand):
    """A botnet guesses a user's password and floods everything; the user goes on logging in from where they did."""
    small = Limit(free=3, leak_seconds=MINUTE, first_seconds=1, longest_seconds=MINUTE)
    throttle = make(username=small, address=small, everywhere=small)
    await guess(throttle, right=True, address="198.51.100.7")

    for number in range(200):
        await admitted(throttle, 1, address=f"192.0.2.{number}")
        await admitted(throttle, 1, f"user{number}", address="198.51.100.7")

    assert await wait_told(throttle, address="203.0.113.1") > 0
    assert await wait_told(throttle, "bob", address="198.51.100.7") > 0
    await guess(throttle, right=True, address="198.51.100.7")
    hand.now += 31 * DAY
    await admitted(throttle, 20, address="203.0.113.1")
    assert await wait_told(throttle, address="198.51.100.7") > 0


async def test_a_known_pair_is_still_slowed_by_itself(throttle):
    await guess(throttle, right=True)
    assert await admitted(throttle, 20) == 5


async def test_an_account_that_everybody_guesses_at_is_slowed_but_never_closed(throttle, hand):
    """From elsewhere there is an attempt a minute at the latest."""
    for number in range(500):
        await admitted(throttle, 1, address=f"10.0.{number // 250}.{number % 250}")
    assert await wait_told(throttle, address="203.0.113.1") <= LIMITS.username.longest_seconds
    hand.now += LIMITS.username.longest_seconds
    await guess(throttle, address="203.0.113.1", right=True)


async def test_too_many_passwords_at_once_is_no_failure(throttle):
    set_current_call(Call(address="192.0.2.1"))
    for _ in range(20):
        with pytest.raises(TooManyPasswords):
            async with throttle.attempt("ann"):
                raise TooManyPasswords("Full.")
    assert await admitted(throttle, 20) == 5


async def test_what_ends_with_an_error_is_a_failure(throttle):
    set_current_call(Call(address="192.0.2.1"))
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            async with throttle.attempt("ann"):
                raise ZeroDivisionError
    assert await admitted(throttle, 20) == 0


async def test_a_short_wait_is_waited_here(make):
    quick = Limit(free=1, leak_seconds=DAY, first_seconds=0.05, longest_seconds=0.05)
    throttle = make(pair=quick, hold_seconds=30)
    throttle._clock = time.time
    for _ in range(4):
        await guess(throttle)


async def test_a_success_lets_in_who_waits_for_the_same(make):
    """More right logins of one user at once than there are free failures: all get in, without the whole wait."""
    throttle = make(pair=replace(LIMITS.pair, first_seconds=20, longest_seconds=20), hold_seconds=30)
    full = asyncio.Event()
    inside = []

    async def log_in():
        async with throttle.attempt("ann"):
            inside.append(None)
            if len(inside) == 5:
                full.set()
            await full.wait()

    await asyncio.wait_for(asyncio.gather(*(log_in() for _ in range(12))), 15)
    assert len(inside) == 12


async def test_a_success_does_not_wake_who_waits_for_another(make, monkeypatch):
    throttle = make(pair=replace(LIMITS.pair, first_seconds=20, longest_seconds=20), hold_seconds=30)
    await admitted(throttle, 5)
    waiting = asyncio.create_task(guess(throttle))
    while throttle._held < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    counted = []
    count = throttle._count
    monkeypatch.setattr(throttle, "_count", lambda names: counted.append(names.pair) or count(names))

    await guess(throttle, "bob", right=True)
    await guess(throttle, "bob", right=True)
    await asyncio.sleep(0.05)

    assert len(counted) == 2
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert throttle._listening == {}


async def test_no_more_than_so_many_wait(make):
    throttle = make(pair=replace(LIMITS.pair, first_seconds=20, longest_seconds=20), hold_seconds=30, held=2)
    await admitted(throttle, 5)
    waiting = [asyncio.create_task(guess(throttle)) for _ in range(2)]
    while throttle._held < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await wait_told(throttle) > 0
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert throttle._held == 0


async def test_names_of_buckets_tell_nothing(throttle, database):
    await guess(throttle, "hunter2", address="192.0.2.77")
    await guess(throttle, "hunter3", address="192.0.2.77", right=True)
    names = await rows(database, FailureRow.bucket)
    assert {name.partition(":")[0] for name in names} == {"pair", "known", "username", "address", "everywhere"}
    assert not [name for name in names if "hunter" in name or "192" in name]
    assert max(map(len, names)) <= FailureRow.__table__.c.bucket.type.length


async def test_refusals_are_audited_once_a_minute_and_without_the_name(throttle, database):
    await admitted(throttle, 200, "hunter2")
    assert await rows(database, AuditEventRow.event) == ["login.limited"]
    assert await rows(database, AuditEventRow.username) == [""]
    assert not [text for text in await rows(database, AuditEventRow.details) if "hunter" in text]


async def test_old_buckets_are_swept(throttle, database, hand):
    store = FailureStore(database)
    await admitted(throttle, 3)
    await guess(throttle, "bob", right=True, address="192.0.2.2")

    assert await store.sweep(now=int(hand.now * 1000)) == 0
    hand.now += DAY
    await store.sweep(now=int(hand.now * 1000))
    assert [name.partition(":")[0] for name in await rows(database, FailureRow.bucket)] == ["known"]
    hand.now += 30 * DAY
    await store.sweep(now=int(hand.now * 1000))
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(FailureRow)) == 0


async def test_sweeping_goes_on_when_the_database_is_away(make, monkeypatch):
    throttle, asked, again = make(), [], asyncio.Event()

    async def away_at_first(*, now):
        asked.append(now)
        if len(asked) == 1:
            raise OperationalError("DELETE", {}, Exception("away"))
        again.set()
        return 0

    monkeypatch.setattr(throttle._failures, "sweep", away_at_first)
    monkeypatch.setattr("uhm_auth.throttle.SWEEP_EVERY_SECONDS", 0)
    sweeping = asyncio.create_task(throttle.sweep())
    await asyncio.wait_for(again.wait(), 30)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_what_of_an_address_counts(address, expected):
    assert network(address) == expected
