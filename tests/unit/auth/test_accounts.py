"""Users looked at, changed and deleted, and what ends with it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from tests.unit.auth.house import open_house
from uhm_auth.accounts import Change
from uhm_auth.errors import (
    ApiKeyRefused,
    InvalidRole,
    InvitationRefused,
    LastAdministrator,
    NoAdministrator,
    SessionEnded,
    UserDisabled,
    UsernameTaken,
    UserNotFound,
    WrongCredentials,
    WrongPassword,
    WrongResetCode,
)
from uhm_auth.models import ApiKeyRow, PasswordResetRow, UserRow
from uhm_common.callers.revocations import Revoked
from uhm_common.errors import InvalidArgument
from uhm_common.paging import InvalidPageToken

ENABLE, DISABLE = Change(disabled=False), Change(disabled=True)
PROMOTE, DEMOTE = Change(role="admin"), Change(role="user")


@pytest.fixture
async def house(tmp_path):
    """Ann, an administrator, and Bob, a user."""
    async with open_house(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}") as opened:
        for name in ("ann", "bob"):
            await opened.registrar.register(name, "test")
        yield opened


async def key_of(house, caller) -> str:
    made = await house.api_keys.create(caller, name="ci", scopes=["account.read"], ttl=None)
    return made.text


async def new_events(house) -> list:
    return [event for event in await house.events() if event[0] not in {"user.created", "login.succeeded"}]


async def test_one_user(house):
    ann = await house.accounts.get("ann")
    assert (ann.username, ann.role, ann.disabled, ann.login_at) == ("ann", "admin", False, None)
    assert ann.created_at == house.clock.now
    house.clock.now += 5
    await house.log_in("ann")
    assert (await house.accounts.get("ann")).login_at == house.clock.now


@pytest.mark.parametrize("username", ["cid", "Ann", "", "a\0b", "x" * 5000, "a/b"])
async def test_no_such_user(house, username):
    for call in (
        house.accounts.get(username),
        house.accounts.update(username, DISABLE, actor="ann"),
        house.accounts.delete(username, actor="ann"),
        house.password_changes.create_reset(username, ttl=None, actor="ann"),
    ):
        with pytest.raises(UserNotFound, match="There is no user") as caught:
            await call
        assert len(str(caught.value)) < 400


async def test_pages_of_users(house):
    for number in range(5):
        await house.registrar.register(f"user{number}", "test")
    await house.accounts.delete("user2", actor="ann")
    names, token = [], ""
    while True:
        page = await house.accounts.page(size=2, token=token)
        names.append([user.username for user in page.users])
        if not (token := page.next_token):
            break
    assert names == [["ann", "bob"], ["user0", "user1"], ["user3", "user4"]]
    assert len((await house.accounts.page(size=0, token="")).users) == 6


async def test_pages_that_there_are_not(house):
    token = (await house.accounts.page(size=1, token="")).next_token
    with pytest.raises(InvalidArgument, match="page_size is -1"):
        await house.accounts.page(size=-1, token="")
    for forged in ("ann", token[:-2], token + "x"):
        with pytest.raises(InvalidPageToken):
            await house.accounts.page(size=1, token=forged)
    with pytest.raises(InvalidPageToken):
        await house.invitations.page(size=1, token=token)


async def test_another_role(house):
    after = await house.accounts.update("bob", PROMOTE, actor="ann")
    assert (after.role, (await house.accounts.get("bob")).role) == ("admin", "admin")
    assert (await house.log_in("bob"))[0].is_admin
    assert await new_events(house) == [("user.updated", "ann", "bob", {"role": "admin", "disabled": "False"})]


@pytest.mark.parametrize("role", ["", "root", "Admin", "x" * 1000])
async def test_no_such_role(house, role):
    with pytest.raises(InvalidRole, match='It is "user" or "admin"') as caught:
        await house.accounts.update("bob", Change(role=role), actor="ann")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("change", [PROMOTE, DISABLE], ids=["role", "disabled"])
async def test_a_change_ends_all_sessions(house, change):
    bearers = [await house.log_in("bob") for _ in range(2)]
    others, _ = await house.log_in("ann")

    await house.accounts.update("bob", change, actor="ann")

    for identity, refresh in bearers:
        with pytest.raises(SessionEnded):
            await house.sessions.refresh(refresh)
        with pytest.raises(Revoked):
            await house.bearer(identity.token)
    assert await house.bearer(others.token)
    assert ("sessions.revoked", "", "bob", {"count": "2", "reason": "updated"}) in await house.events()


@pytest.mark.parametrize("change", [Change(), DEMOTE, ENABLE, Change(role="user", disabled=False)])
async def test_what_changes_nothing_ends_nothing(house, change):
    _, refresh = await house.log_in("bob")
    before = await house.accounts.get("bob")
    assert await house.accounts.update("bob", change, actor="ann") == before
    assert (await house.sessions.refresh(refresh)).access
    assert await new_events(house) == []


async def test_disabled_and_enabled_again(house):
    bob, _ = await house.log_in("bob")
    key = await key_of(house, bob)

    assert (await house.accounts.update("bob", DISABLE, actor="ann")).disabled
    with pytest.raises(UserDisabled):
        await house.log_in("bob")
    with pytest.raises(ApiKeyRefused):
        await house.bearer(key)

    assert not (await house.accounts.update("bob", ENABLE, actor="ann")).disabled
    assert (await house.log_in("bob"))[0].username == "bob"
    house.clock.now += 20
    assert (await house.bearer(key)).username == "bob"


async def test_disabled_twice_is_disabled_since_the_first_time(house):
    first = await house.accounts.update("bob", DISABLE, actor="ann")
    house.clock.now += 60
    assert (await house.accounts.update("bob", PROMOTE, actor="ann")).disabled_at == first.disabled_at


@pytest.mark.parametrize("change", [DISABLE, DEMOTE], ids=["disabled", "role"])
async def test_keys_remembered_with_more_rights_are_forgotten(house, change):
    await house.accounts.update("bob", PROMOTE, actor="ann")
    bob, _ = await house.log_in("bob")
    key = await key_of(house, bob)
    remembered = await house.bearer(key)
    assert remembered.is_admin

    await house.accounts.update("bob", change, actor="ann")

    assert remembered.session_id in house.verifier.revocations  # as every service is told
    with pytest.raises((Revoked, ApiKeyRefused)):
        await house.bearer(key)


@pytest.mark.parametrize("change", [DISABLE, DEMOTE], ids=["disabled", "role"])
async def test_what_an_administrator_has_handed_out_ends_with_the_office(house, change):
    await house.accounts.update("bob", PROMOTE, actor="ann")
    invitation = await house.invitations.create(role="admin", ttl=None, creator="bob")
    kept = await house.invitations.create(role="user", ttl=None, creator="ann")
    reset = await house.password_changes.create_reset("ann", ttl=None, actor="bob")

    await house.accounts.update("bob", change, actor="ann")

    with pytest.raises(InvitationRefused):
        await house.registrar.register("cid", "test", invitation=invitation.code)
    with pytest.raises(WrongResetCode):
        await house.password_changes.reset("ann", code=reset.code, new="mine now")
    await house.registrar.register("cid", "test", invitation=kept.code)


@pytest.mark.parametrize("change", [DISABLE, DEMOTE], ids=["disabled", "role"])
async def test_an_administrator_is_left(house, change):
    refused = [house.accounts.update("ann", change, actor="ann"), house.accounts.delete("ann", actor="ann")]
    refused.append(house.accounts.delete_caller("ann", "test"))
    for call in refused:
        with pytest.raises(LastAdministrator, match="'ann' is the last administrator"):
            await call
    assert await house.log_in("ann")

    await house.accounts.update("bob", PROMOTE, actor="ann")
    await house.accounts.update("ann", change, actor="ann")
    with pytest.raises(LastAdministrator):
        await house.accounts.update("bob", change, actor="bob")


@pytest.mark.parametrize("change", [DISABLE, DEMOTE, None], ids=["disabled", "role", "deleted"])
async def test_who_administers_no_more_when_it_comes_to_it_changes_nothing(house, change):
    """The call was let in, and the office ended before its transaction began."""
    await house.registrar.register("cid", "test")
    if change is not None:
        await house.accounts.update("bob", PROMOTE, actor="ann")
        await house.accounts.update("bob", change, actor="ann")
    else:
        await house.accounts.delete("bob", actor="ann")
    before = await house.events()
    for call in (
        house.accounts.update("cid", PROMOTE, actor="bob"),
        house.accounts.delete("cid", actor="bob"),
        house.invitations.create(role="admin", ttl=None, creator="bob"),
        house.password_changes.create_reset("ann", ttl=None, actor="bob"),
    ):
        with pytest.raises(NoAdministrator):
            await call
    assert await house.events() == before


async def test_a_disabled_administrator_is_none_who_is_left(house):
    await house.accounts.update("bob", Change(role="admin", disabled=True), actor="ann")
    with pytest.raises(LastAdministrator):
        await house.accounts.delete("ann", actor="ann")
    await house.accounts.delete("bob", actor="ann")


@pytest.mark.parametrize(
    ("other_or", "refusal"),
    [({"ann": "bob", "bob": "ann"}.get, NoAdministrator), (str, LastAdministrator)],
    ids=["each other", "themselves"],
)
async def test_of_many_who_demote_each_other_or_themselves_one_stays(house, other_or, refusal):
    await house.accounts.update("bob", PROMOTE, actor="ann")
    answers = await asyncio.gather(
        house.accounts.update("ann", DEMOTE, actor=other_or("ann")),
        house.accounts.update("bob", DEMOTE, actor=other_or("bob")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [refusal]
    assert sorted([(await house.accounts.get(name)).role for name in ("ann", "bob")]) == ["admin", "user"]


async def test_a_deleted_user_is_gone(house):
    bob, refresh = await house.log_in("bob")
    key = await key_of(house, bob)
    reset = await house.password_changes.create_reset("bob", ttl=None, actor="ann")

    await house.accounts.delete("bob", actor="ann")

    with pytest.raises(UserNotFound):
        await house.accounts.get("bob")
    with pytest.raises(WrongCredentials):
        await house.credentials.check("bob", "test")
    with pytest.raises(SessionEnded):
        await house.sessions.refresh(refresh)
    for bearer, refusal in ((bob.token, Revoked), (key, ApiKeyRefused)):
        with pytest.raises(refusal):
            await house.bearer(bearer)
    assert key.split("_")[1] in house.verifier.revocations  # as every service is told
    with pytest.raises(WrongResetCode):
        await house.password_changes.reset("bob", code=reset.code, new="back again")
    with pytest.raises(UserNotFound):
        await house.accounts.delete("bob", actor="ann")
    assert ("user.deleted", "ann", "bob", {}) in await house.events()
    async with house.database.read() as transaction:
        user = await transaction.scalar(select(UserRow).where(UserRow.username == "bob"))
        assert (user.password_hash, user.deleted_at) == ("", house.clock.now)
        assert await transaction.scalar(select(PasswordResetRow.user_id)) is None
        assert await transaction.scalar(select(ApiKeyRow.revoked_at)) == house.clock.now


async def test_a_deleted_users_name_stays_taken(house):
    await house.accounts.delete("bob", actor="ann")
    with pytest.raises(UsernameTaken):
        await house.registrar.register("bob", "test")


async def test_a_deletion_is_told_to_the_other_services(house):
    with pytest.raises(LastAdministrator):
        await house.accounts.delete("ann", actor="ann")
    assert await house.told() == []
    await house.accounts.delete("bob", actor="ann")
    assert await house.told() == [("uhm.users.deleted", {"username": "bob", "deleted_at": house.clock.now})]


async def test_who_leaves_gives_the_password_once_more(house):
    bob, _ = await house.log_in("bob")
    for wrong in ("", "Test", "test "):
        with pytest.raises(WrongPassword):
            await house.accounts.delete_caller("bob", wrong)
    assert await house.bearer(bob.token)

    await house.accounts.delete_caller("bob", "test")

    assert await house.users.user("bob") is None
    assert await house.told() == [("uhm.users.deleted", {"username": "bob", "deleted_at": house.clock.now})]
    events = await new_events(house)
    assert events[:3] == [("password.refused", "", "bob", {"reason": "password"})] * 3
    assert ("user.deleted", "bob", "bob", {}) in events


async def test_a_login_that_a_change_overtook_begins_nothing(house):
    """The password was right when it was looked at, but before the session began everything was over."""
    for name, change in [("bob", DISABLE), ("bob", Change(role="admin", disabled=False))]:
        before = await house.users.user(name)
        await house.accounts.update(name, change, actor="ann")
        with pytest.raises(WrongCredentials):
            await house.sessions.begin(before, rotates=False)
    before = await house.users.user("bob")
    await house.accounts.delete("bob", actor="ann")
    with pytest.raises(WrongCredentials):
        await house.sessions.begin(before, rotates=False)
