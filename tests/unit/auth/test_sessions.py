"""Sessions and their tokens: begun, refreshed, rotated, ended."""

from __future__ import annotations

import asyncio

import jwt
import pytest

from uhm_auth.errors import RefreshTokenReused, SessionEnded
from uhm_auth.tokens import TokenKind
from uhm_common.errors import Unauthenticated

CLAIMS = {"iss", "aud", "iat", "nbf", "exp", "jti", "sub", "identity", "fresh", "type", "sid"}


@pytest.fixture
async def ann(store):
    await store.add_user("ann", "hash", now=100)
    return await store.user("ann")


def unverified(token) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


async def test_the_claims_of_both_tokens(sessions, tokens, ann):
    issued = await sessions.begin(ann, rotates=False)
    access = await tokens.verifier.claims(issued.access, kind="access")
    refresh = await tokens.verifier.claims(issued.refresh, kind="refresh")

    assert set(access) == set(refresh) == CLAIMS
    assert access["sub"] == access["identity"] == "ann"
    assert (access["iss"], access["aud"]) == ("issuer", "audience")
    assert (access["type"], access["fresh"]) == ("access", True)
    assert (refresh["type"], refresh["fresh"]) == ("refresh", False)
    assert access["exp"] - access["iat"] == 900
    assert refresh["exp"] - refresh["iat"] == 86400
    assert access["nbf"] == access["iat"]
    assert access["sid"] == refresh["sid"]
    assert access["jti"] != refresh["jti"]


async def test_a_refresh_token_stays_good(sessions, ann, clock):
    issued = await sessions.begin(ann, rotates=False)
    for _ in range(3):
        clock.ahead += 10
        again = await sessions.refresh(issued.refresh)
        assert again.refresh is None
        claims = unverified(again.access)
        assert (claims["sub"], claims["fresh"], claims["type"]) == ("ann", False, "access")


async def test_a_session_that_rotates_gives_a_new_token_each_time(sessions, ann, clock):
    issued = await sessions.begin(ann, rotates=True)
    refresh = issued.refresh
    for _ in range(3):
        clock.ahead += 1
        again = await sessions.refresh(refresh)
        assert again.refresh not in (None, refresh)
        assert unverified(again.refresh)["sid"] == unverified(issued.refresh)["sid"]
        refresh = again.refresh


async def test_an_old_token_used_again_ends_the_session(sessions, ann):
    issued = await sessions.begin(ann, rotates=True)
    again = await sessions.refresh(issued.refresh)

    with pytest.raises(RefreshTokenReused):
        await sessions.refresh(issued.refresh)

    with pytest.raises(SessionEnded):
        await sessions.refresh(again.refresh)
    with pytest.raises(SessionEnded):
        await sessions.refresh(issued.refresh)


async def test_of_two_refreshes_at_once_one_succeeds(sessions, ann):
    issued = await sessions.begin(ann, rotates=True)

    answers = await asyncio.gather(*(sessions.refresh(issued.refresh) for _ in range(5)), return_exceptions=True)

    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} <= {RefreshTokenReused, SessionEnded}


async def test_one_session_ends_and_others_go_on(sessions, ann):
    first, second = [await sessions.begin(ann, rotates=False) for _ in range(2)]

    await sessions.end(first.refresh)

    with pytest.raises(SessionEnded):
        await sessions.refresh(first.refresh)
    assert await sessions.refresh(second.refresh)


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_either_token_ends_the_session_and_may_do_so_twice(sessions, ann, kind):
    issued = await sessions.begin(ann, rotates=False)
    for _ in range(2):
        await sessions.end(getattr(issued, kind))
    with pytest.raises(SessionEnded):
        await sessions.refresh(issued.refresh)


async def test_each_token_is_good_for_its_own_use_only(sessions, tokens, ann):
    issued = await sessions.begin(ann, rotates=False)
    with pytest.raises(Unauthenticated, match="This is an access token; a refresh token is needed"):
        await sessions.refresh(issued.access)
    with pytest.raises(Unauthenticated, match="This is a refresh token; an access token is needed"):
        await tokens.verifier.identity({"authorization": f"Bearer {issued.refresh}"})


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
async def test_what_is_no_token(sessions, token):
    for use in (sessions.refresh, sessions.end):
        with pytest.raises(Unauthenticated, match="not a JSON Web Token"):
            await use(token)


async def test_an_expired_refresh_token(sessions, ann, clock):
    clock.ahead = -86400 - 60
    issued = await sessions.begin(ann, rotates=False)
    with pytest.raises(Unauthenticated, match="The refresh token has expired"):
        await sessions.refresh(issued.refresh)
    with pytest.raises(Unauthenticated, match="The refresh token has expired"):
        await sessions.end(issued.refresh)


async def test_an_expired_access_token_ends_nothing(sessions, ann, clock):
    clock.ahead = -900 - 60
    issued = await sessions.begin(ann, rotates=False)
    with pytest.raises(Unauthenticated, match="The access token has expired"):
        await sessions.end(issued.access)
    assert await sessions.refresh(issued.refresh)


async def test_expired_sessions_are_forgotten_and_their_tokens_stay_bad(sessions, ann, clock):
    issued = await sessions.begin(ann, rotates=False)
    assert await sessions.forget_expired() == 0

    clock.ahead = 86400 + 60

    assert await sessions.forget_expired() == 1
    clock.ahead = 0
    with pytest.raises(SessionEnded):
        await sessions.refresh(issued.refresh)


async def test_a_token_of_a_session_that_never_was(sessions, tokens, clock):
    forged = tokens.sign(TokenKind.REFRESH, username="ann", session_id="nowhere", fresh=False, now=int(clock()))
    with pytest.raises(SessionEnded):
        await sessions.refresh(forged.text)


async def test_the_database_does_not_hold_the_token(sessions, store, ann):
    issued = await sessions.begin(ann, rotates=True)
    claims = unverified(issued.refresh)
    session = await store.session(claims["sid"])
    assert claims["jti"] not in (session.token_hash, session.id)
    assert issued.refresh not in repr(issued)
