"""Stored passwords."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest

from uhm_auth import passwords as passwords_module
from uhm_auth.errors import InvalidPassword, TooManyPasswords
from uhm_auth.passwords import PasswordHasher, hash_password, nobodys_hash, verify_in_time, verify_password
from uhm_auth.policy import Policy

# From the documentation of passlib's bcrypt_sha256, which defines the form.
PASSLIB = "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2"


def test_the_published_example_verifies():
    assert verify_password("password", PASSLIB)
    assert not verify_password("passwore", PASSLIB)


@pytest.mark.parametrize(
    "password",
    ["test", " ", "pässwörd", "\N{PILE OF POO}", "nul\0inside", "x" * 72, "x" * 73, "x" * 1024],
    ids=["short", "space", "umlauts", "astral", "nul", "72 bytes", "73 bytes", "1024 bytes"],
)
def test_a_password_and_nothing_near_it_verifies(password):
    stored = hash_password(password, cost=4)

    assert stored.startswith("$bcrypt-sha256$v=2,t=2b,r=4$")
    assert verify_password(password, stored)
    for near in (password + "x", password[:-1] + "y", password.swapcase() + " ", ""):
        assert not verify_password(near, stored)


def test_nothing_is_cut_at_72_bytes_or_at_a_nul():
    assert not verify_password("x" * 72 + "a", hash_password("x" * 72 + "b", cost=4))
    assert not verify_password("a\0b", hash_password("a\0c", cost=4))


def test_salts_differ():
    assert hash_password("test", cost=4) != hash_password("test", cost=4)


@pytest.mark.parametrize(
    "stored", ["", "plain", "$2b$12$abc", PASSLIB[:-1], PASSLIB + "\n", PASSLIB.replace("=2,", "=1,")]
)
def test_what_is_not_a_stored_password(stored):
    with pytest.raises(ValueError, match="not a bcrypt-sha256 hash"):
        verify_password("password", stored)


@pytest.mark.parametrize("cost", [4, 5, 7])
def test_nobodys_hash_is_a_stored_form_that_no_password_has(cost):
    stored = nobodys_hash(cost)
    assert f",r={cost}$" in stored
    for password in ("", "test", stored):
        assert not verify_password(password, stored)


@pytest.mark.parametrize(("made_with", "today", "rounds"), [(4, 4, 1), (4, 5, 2), (4, 9, 32), (6, 8, 4), (6, 5, 1)])
def test_a_wrong_password_takes_the_rounds_of_today(made_with, today, rounds, monkeypatch):
    """Counted in rounds of the cost that the hash was made with."""
    stored, taken = hash_password("test", cost=made_with), 0
    verify = passwords_module.verify_password

    def counted(password, looked_at):
        nonlocal taken
        taken += 2 ** int(re.search(r",r=(\d+)\$", looked_at)[1])
        return verify(password, looked_at)

    monkeypatch.setattr(passwords_module, "verify_password", counted)
    assert not verify_in_time("wrong", stored, cost=today)
    assert taken == rounds * 2**made_with
    assert verify_in_time("test", stored, cost=today)


async def test_a_password_is_chosen_by_the_policy():
    policy = Policy(password_min_length=8, password_min_score=3)
    with PasswordHasher(cost=4, threads=1, waiting=1, policy=policy) as hasher:
        for refused in ("short", "password1"):
            with pytest.raises(InvalidPassword):
                await hasher.choose(refused, username="ann")
        stored = await hasher.choose("goose flute 7 marzipan", username="ann")
        assert await hasher.verify("goose flute 7 marzipan", stored)


async def test_hashing_leaves_the_event_loop_free(hasher, monkeypatch):
    monkeypatch.setattr(passwords_module, "hash_password", lambda *_, **__: time.sleep(0.3))
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await hasher.hash("test")
    ticking.cancel()

    assert ticks >= 10


async def test_threads_and_waiting_are_bounded(monkeypatch):
    busy, most, lock = 0, 0, threading.Lock()

    def slowly(password, *, cost):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.05)
        with lock:
            busy -= 1
        return password

    monkeypatch.setattr(passwords_module, "hash_password", slowly)
    with PasswordHasher(cost=4, threads=2, waiting=3) as hasher:
        answers = await asyncio.gather(*(hasher.hash("test") for _ in range(8)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [str] * 5 + [TooManyPasswords] * 3
        assert most == 2
        await asyncio.sleep(0)
        assert await hasher.hash("again") == "again"


async def test_a_call_that_is_given_up_frees_its_place():
    with PasswordHasher(cost=4, threads=1, waiting=1) as hasher:
        for _ in range(5):
            calls = [asyncio.create_task(hasher.hash("test")) for _ in range(2)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(0.05)
        assert await hasher.hash("test")


async def test_a_user_who_does_not_exist_costs_the_same(monkeypatch):
    """Both ways through bcrypt with the same cost: what is counted is calls, because time is noisy."""
    checked = []
    verify = passwords_module.verify_password
    monkeypatch.setattr(
        passwords_module, "verify_password", lambda p, stored: checked.append(stored) or verify(p, stored)
    )
    with PasswordHasher(cost=5, threads=1, waiting=1) as hasher:
        assert not await hasher.verify("", None)
        assert not await hasher.verify("wrong", hash_password("right", cost=5))

    assert [stored[:28] for stored in checked] == ["$bcrypt-sha256$v=2,t=2b,r=5$"] * 2


def test_a_change_of_the_cost_outdates_what_is_stored(hasher):
    assert not hasher.is_outdated(hash_password("test", cost=4))
    assert hasher.is_outdated(PASSLIB)
