"""Users and sessions in the database; the same statements run on PostgreSQL in tests/integration/test_auth.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from uhm_auth.errors import UsernameTaken
from uhm_auth.store import Session

SESSION = Session(id="s1", username="ann", rotates=True, token_hash="h1", expires_at=200)


@pytest.fixture
async def ann(store):
    await store.add_user("ann", "hash", now=100)
    return await store.user("ann")


async def test_users(store, ann):
    assert (ann.username, ann.password_hash) == ("ann", "hash")
    assert await store.user("bob") is None
    assert await store.user("Ann") is None

    await store.set_password_hash(ann.id, "newer")

    assert (await store.user("ann")).password_hash == "newer"


async def test_a_name_is_taken_once_however_many_want_it(store):
    answers = await asyncio.gather(
        *(store.add_user("ann", f"hash{number}", now=100) for number in range(10)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType"] + ["UsernameTaken"] * 9
    with pytest.raises(UsernameTaken, match="'ann' is taken"):
        await store.add_user("ann", "hash", now=100)


async def test_sessions(store, ann):
    assert await store.session("s1") is None

    await store.add_session(SESSION, user_id=ann.id, now=100)

    assert await store.session("s1") == SESSION


async def test_one_of_many_replaces_a_token(store, ann):
    await store.add_session(SESSION, user_id=ann.id, now=100)

    answers = await asyncio.gather(
        *(store.replace_token("s1", old_hash="h1", new_hash=f"n{number}", expires_at=300) for number in range(10))
    )

    assert sorted(answers) == [False] * 9 + [True]
    winner = answers.index(True)
    assert await store.session("s1") == replace(SESSION, token_hash=f"n{winner}", expires_at=300)


async def test_revocation_is_for_good(store, ann):
    await store.add_session(SESSION, user_id=ann.id, now=100)

    await store.revoke_session("s1", now=150)
    await store.revoke_session("s1", now=160)
    await store.revoke_session("unknown", now=160)

    assert (await store.session("s1")).revoked_at == 150
    assert not await store.replace_token("s1", old_hash="h1", new_hash="h2", expires_at=300)


@pytest.mark.parametrize(
    ("session", "now", "ended"),
    [
        (SESSION, 199, False),
        (SESSION, 200, True),
        (replace(SESSION, revoked_at=150), 151, True),
    ],
)
def test_when_a_session_has_ended(session, now, ended):
    assert session.ended(now=now) is ended


async def test_expired_sessions_are_forgotten(store, ann):
    await store.add_session(SESSION, user_id=ann.id, now=100)
    await store.add_session(replace(SESSION, id="s2", expires_at=300), user_id=ann.id, now=100)

    assert await store.delete_expired_sessions(now=200) == 1

    assert await store.session("s1") is None
    assert await store.session("s2") is not None
