"""Sessions and their tokens: begun, refreshed, rotated, listed, ended."""

from __future__ import annotations

import asyncio

import jwt
import pytest

from uhm_auth.errors import RefreshTokenReused, SessionEnded, SessionNotFound, WrongCredentials
from uhm_auth.sessions import Lifetimes, Sessions
from uhm_common.callers.calls import Call, set_current_call
from uhm_common.callers.identity import Identity
from uhm_common.callers.revocations import Revoked
from uhm_common.errors import Unauthenticated
from uhm_common.paging import InvalidPageToken, PageTokens

CLAIMS = {"iss", "aud", "iat", "nbf", "exp", "jti", "sub", "identity", "fresh", "type", "sid", "role"}


def unverified(token) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


def bearer(token) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def whose(issued) -> Identity:
    claims = unverified(issued.access)
    return Identity(username=claims["sub"], session_id=claims["sid"], token=issued.access)


async def test_the_claims_of_both_tokens(sessions, verifier, ann):
    issued = await sessions.begin(ann, rotates=False)
    access = await verifier.claims(issued.access, kind="access")
    refresh = await verifier.claims(issued.refresh, kind="refresh")

    assert set(access) == set(refresh) == CLAIMS
    assert access["sub"] == access["identity"] == "ann"
    assert (access["iss"], access["aud"], access["role"]) == ("issuer", "audience", "user")
    assert (access["type"], access["fresh"]) == ("access", True)
    assert (refresh["type"], refresh["fresh"]) == ("refresh", False)
    assert access["exp"] - access["iat"] == 900
    assert refresh["exp"] - refresh["iat"] == 86400
    assert access["nbf"] == access["iat"]
    assert access["sid"] == refresh["sid"]
    assert access["jti"] != refresh["jti"]
    assert jwt.get_unverified_header(issued.access)["typ"] == "at+jwt"
    assert jwt.get_unverified_header(issued.refresh)["typ"] == "rt+jwt"


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


async def test_a_lost_answer_is_given_again_for_some_seconds(sessions, ann, clock, logged):
    issued = await sessions.begin(ann, rotates=True)
    again = await sessions.refresh(issued.refresh)
    clock.ahead = 9

    once_more = await sessions.refresh(issued.refresh)

    assert once_more.refresh == again.refresh
    assert unverified(once_more.access)["jti"] != unverified(again.access)["jti"]
    assert (await sessions.refresh(again.refresh)).refresh not in (None, again.refresh)
    assert [event for event, _ in await logged()] == ["login.succeeded"]


async def test_the_same_successor_also_after_a_rotation_of_keys(sessions, ann, keys):
    issued = await sessions.begin(ann, rotates=True)
    again = await sessions.refresh(issued.refresh)
    await keys.rotate(actor="ann", reason="command")

    once_more = await sessions.refresh(issued.refresh)

    assert unverified(once_more.refresh) == unverified(again.refresh)
    assert (await sessions.refresh(once_more.refresh)).refresh


@pytest.mark.parametrize("uses_between", [0, 1], ids=["after the grace", "two behind, within it"])
async def test_an_old_token_used_again_ends_the_session(sessions, ann, clock, logged, verifier, uses_between):
    issued = await sessions.begin(ann, rotates=True)
    last = await sessions.refresh(issued.refresh)
    for _ in range(uses_between):
        last = await sessions.refresh(last.refresh)
    clock.ahead = 0 if uses_between else 12

    with pytest.raises(RefreshTokenReused):
        await sessions.refresh(issued.refresh)

    for token in (last.refresh, issued.refresh):
        with pytest.raises(SessionEnded):
            await sessions.refresh(token)
    with pytest.raises(Revoked):
        await verifier.identity(bearer(last.access))
    assert (await logged())[-1] == ("refresh.reused", "ann")


async def test_of_many_refreshes_at_once_one_wins_and_the_others_get_the_same(sessions, ann):
    issued = await sessions.begin(ann, rotates=True)

    answers = await asyncio.gather(*(sessions.refresh(issued.refresh) for _ in range(20)))

    assert len({answer.refresh for answer in answers}) == 1
    assert len({answer.access for answer in answers}) == 20
    assert (await sessions.refresh(answers[0].refresh)).refresh


async def test_no_session_lasts_for_ever(session_store, tokens, feed, vault, ann, clock):
    lifetimes = Lifetimes(refresh=86400, longest=86400 + 500, grace=10)
    sessions = Sessions(session_store, tokens, feed, lifetimes=lifetimes, page_tokens=PageTokens(vault), clock=clock)
    clock.ahead = -1000
    issued = await sessions.begin(ann, rotates=True)
    began = unverified(issued.refresh)["iat"]
    clock.ahead = 0

    again = await sessions.refresh(issued.refresh)

    assert unverified(issued.refresh)["exp"] == began + 86400
    assert unverified(again.refresh)["exp"] == began + 86400 + 500


async def test_a_session_that_lasts_longer_than_sessions_may_now_is_over(make_sessions, sessions, ann, clock):
    issued = await sessions.begin(ann, rotates=True)
    clock.ahead += 200
    shorter = make_sessions(lifetimes=Lifetimes(refresh=86400, longest=100, grace=10))
    with pytest.raises(SessionEnded):
        await shorter.refresh(issued.refresh)


async def test_where_rotation_is_demanded_sessions_begun_before_rotate_too(
    sessions, demanding_sessions, ann, logged, clock
):
    issued = await sessions.begin(ann, rotates=False)

    again = await demanding_sessions.refresh(issued.refresh)

    assert again.refresh not in (None, issued.refresh)
    (listed,), _ = await sessions.page(whose(issued), size=5, token="")
    assert listed.rotates
    clock.ahead += 20
    with pytest.raises(RefreshTokenReused):
        await demanding_sessions.refresh(issued.refresh)


async def test_revoked_sessions_are_forgotten_with_their_revocation(sessions, ann, clock, database):
    ended, going_on = [await sessions.begin(ann, rotates=False) for _ in range(2)]
    await sessions.end(ended.access)
    assert await sessions.forget_expired() == 0
    clock.ahead += 900 + 61
    assert await sessions.forget_expired() == 1
    assert (await sessions.refresh(going_on.refresh)).access
    with pytest.raises(SessionEnded):
        await sessions.refresh(ended.refresh)


async def test_an_access_token_does_not_outlive_its_session(session_store, tokens, feed, vault, ann):
    lifetimes = Lifetimes(refresh=100, longest=86400, grace=10)
    sessions = Sessions(session_store, tokens, feed, lifetimes=lifetimes, page_tokens=PageTokens(vault))
    issued = await sessions.begin(ann, rotates=False)
    assert unverified(issued.access)["exp"] == unverified(issued.refresh)["exp"]


async def test_one_session_too_many_ends_the_one_used_longest_ago(sessions, ann, add_user, verifier, clock, logged):
    clock.ahead = -30
    bobs = await sessions.begin(await add_user("bob"), rotates=False)
    made = []
    for rotates in (True, False, True, False, False):
        made.append(await sessions.begin(ann, rotates=rotates))
        clock.ahead += 5
    again = await sessions.refresh(made[0].refresh)

    await sessions.begin(ann, rotates=False)

    with pytest.raises(SessionEnded):
        await sessions.refresh(made[1].refresh)
    with pytest.raises(Revoked):
        await verifier.identity(bearer(made[1].access))
    for other in (again, *made[2:], bobs):
        assert await sessions.refresh(other.refresh)
        assert await verifier.identity(bearer(other.access))
    assert (await logged())[-1] == ("sessions.revoked", "ann")


async def test_of_many_logins_at_once_not_too_many_go_on(sessions, ann):
    issued = await asyncio.gather(*(sessions.begin(ann, rotates=False) for _ in range(12)))
    listed, _ = await sessions.page(whose(issued[0]), size=20, token="")
    assert len(listed) == 5


async def test_a_role_that_was_given_is_in_the_next_access_token(sessions, users, ann):
    issued = await sessions.begin(ann, rotates=False)
    async with users.changing() as transaction:
        await users.set_rights(transaction, ann, role="admin", disabled_at=None)

    assert unverified((await sessions.refresh(issued.refresh)).access)["role"] == "admin"


async def test_no_session_begins_where_the_password_was_changed_meanwhile(sessions, users, ann):
    async with users.changing() as transaction:
        await users.set_password(transaction, ann, "another")

    with pytest.raises(WrongCredentials):
        await sessions.begin(ann, rotates=False)


async def test_a_session_like_one_that_ended(sessions, ann):
    for rotates in (False, True):
        before = await sessions.begin(ann, rotates=rotates)
        await sessions.end(before.access)
        after = await sessions.begin_like(whose(before).session_id, ann)
        assert whose(after).session_id != whose(before).session_id
        assert ((await sessions.refresh(after.refresh)).refresh is not None) is rotates


async def test_one_session_ends_and_others_go_on(sessions, ann, verifier, logged):
    first, second = [await sessions.begin(ann, rotates=False) for _ in range(2)]

    await sessions.end(first.refresh)

    with pytest.raises(SessionEnded):
        await sessions.refresh(first.refresh)
    with pytest.raises(Revoked):
        await verifier.identity(bearer(first.access))
    assert await sessions.refresh(second.refresh)
    assert await verifier.identity(bearer(second.access))
    assert (await logged())[-1] == ("session.revoked", "ann")


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_either_token_ends_the_session_and_may_do_so_twice(sessions, ann, kind, logged):
    issued = await sessions.begin(ann, rotates=False)
    for _ in range(2):
        await sessions.end(getattr(issued, kind))
    with pytest.raises(SessionEnded):
        await sessions.refresh(issued.refresh)
    assert [event for event, _ in await logged()] == ["login.succeeded", "session.revoked"]


async def test_everywhere(sessions, ann, add_user, verifier, logged):
    bob = await add_user("bob")
    anns = [await sessions.begin(ann, rotates=rotates) for rotates in (False, True)]
    bobs = await sessions.begin(bob, rotates=False)

    await sessions.end_everywhere(anns[0].refresh)

    for issued in anns:
        with pytest.raises(SessionEnded):
            await sessions.refresh(issued.refresh)
        with pytest.raises(Revoked):
            await verifier.identity(bearer(issued.access))
    assert await sessions.refresh(bobs.refresh)
    assert (await logged())[-1] == ("sessions.revoked", "ann")
    with pytest.raises(SessionEnded):
        await sessions.end_everywhere(anns[0].access)


async def test_the_list(sessions, ann, add_user, clock):
    bob = await add_user("bob")
    set_current_call(Call(address="192.0.2.7", user_agent="curl/8"))
    made = []
    for rotates in (True, False, False):
        made.append(await sessions.begin(ann, rotates=rotates))
        clock.ahead += 5
    await sessions.begin(bob, rotates=False)
    await sessions.end(made[1].access)
    await sessions.refresh(made[0].refresh)

    listed, token = await sessions.page(whose(made[0]), size=10, token="")

    assert [session.id for session in listed] == [whose(made[2]).session_id, whose(made[0]).session_id]
    assert token == ""
    oldest = listed[1]
    assert (oldest.address, oldest.user_agent, oldest.rotates) == ("192.0.2.7", "curl/8", True)
    assert oldest.used_at - oldest.created_at in (15, 16)


async def test_the_list_by_pages(sessions, ann, add_user):
    bob = await sessions.begin(await add_user("bob"), rotates=False)
    caller = [whose(await sessions.begin(ann, rotates=False)) for _ in range(5)].pop()
    seen, token = [], ""
    while True:
        page, token = await sessions.page(caller, size=2, token=token)
        seen += [session.id for session in page]
        if not token:
            break
        with pytest.raises(InvalidPageToken):
            await sessions.page(whose(bob), size=2, token=token)

    assert len(seen) == len(set(seen)) == 5


async def test_deleting_one_of_the_list(sessions, ann, add_user, verifier):
    bobs = await sessions.begin(await add_user("bob"), rotates=False)
    first, second = [await sessions.begin(ann, rotates=False) for _ in range(2)]

    await sessions.delete(whose(second), whose(first).session_id)

    with pytest.raises(Revoked):
        await verifier.identity(bearer(first.access))
    for gone in (whose(first).session_id, whose(bobs).session_id, "nothing", "a\0b", "0" * 32, "x" * 10_000):
        with pytest.raises(SessionNotFound) as caught:
            await sessions.delete(whose(second), gone)
        assert len(str(caught.value)) < 300
    assert await verifier.identity(bearer(bobs.access))


async def test_each_token_is_good_for_its_own_use_only(sessions, verifier, ann):
    issued = await sessions.begin(ann, rotates=False)
    with pytest.raises(Unauthenticated, match="This is an access token; a refresh token is needed"):
        await sessions.refresh(issued.access)
    with pytest.raises(Unauthenticated, match="This is a refresh token; an access token is needed"):
        await verifier.identity(bearer(issued.refresh))


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
async def test_what_is_no_token(sessions, token):
    for use in (sessions.refresh, sessions.end, sessions.end_everywhere):
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


async def test_a_revocation_is_remembered_for_as_long_as_tokens_are_good(sessions, ann, feed, clock):
    issued = await sessions.begin(ann, rotates=False)
    await sessions.end(issued.access)
    clock.ahead = 950
    assert await feed.forget_expired() == 0
    assert whose(issued).session_id in feed.revocations

    clock.ahead = 970

    assert await feed.forget_expired() == 1
    assert whose(issued).session_id not in feed.revocations


async def test_of_many_who_replace_a_token_one_does(session_store, sessions, ann):
    session_id = whose(await sessions.begin(ann, rotates=True)).session_id
    session = await session_store.session(session_id)

    answers = await asyncio.gather(
        *(session_store.replace_token(session, token_id=f"n{n}", now=100, expires_at=300) for n in range(10))
    )

    assert sorted(answers) == [False] * 9 + [True]
    stored = await session_store.session(session_id)
    assert (stored.token_id, stored.replaced_id) == (f"n{answers.index(True)}", session.token_id)


async def test_revocation_is_for_good(session_store, sessions, ann):
    issued = await sessions.begin(ann, rotates=True)
    session = await session_store.session(whose(issued).session_id)
    await sessions.end(issued.access)

    assert not await session_store.replace_token(session, token_id="n", now=100, expires_at=300)
    assert not await session_store.use(session.id, now=100)


async def test_what_is_shown_of_tokens(sessions, session_store, ann):
    issued = await sessions.begin(ann, rotates=True)
    claims = unverified(issued.refresh)
    assert issued.refresh not in repr(issued)
    assert claims["jti"] not in repr(await session_store.session(claims["sid"]))
