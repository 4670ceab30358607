"""Invitations made, listed and withdrawn. Using them is in test_registrar.py."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tests.unit.auth.house import open_house
from uhm_auth.errors import InvalidRole, InvalidTtl, InvitationNotFound, InvitationRefused, NobodyRegisters
from uhm_auth.models import InvitationRow
from uhm_auth.policy import Policy, Registration
from uhm_auth.stores.invitations import InvitationStore
from uhm_common.errors import InvalidArgument
from uhm_common.paging import InvalidPageToken

DAY = 24 * 3600


@pytest.fixture
async def house(tmp_path):
    """Where Ann is an administrator."""
    async with open_house(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}") as opened:
        await opened.registrar.register("ann", "test")
        yield opened


async def listed(house, **page) -> list[str]:
    return [each.id for each in (await house.invitations.page(**{"size": 0, "token": "", **page})).invitations]


async def made(house, **more) -> str:
    new = await house.invitations.create(**{"role": "user", "ttl": None, "creator": "ann", **more})
    return new.invitation.id


async def test_what_is_made(house):
    new = await house.invitations.create(role="admin", ttl=None, creator="ann")
    invitation = new.invitation
    assert (invitation.role, invitation.creator) == ("admin", "ann")
    assert (invitation.created_at, invitation.expires_at) == (house.clock.now, house.clock.now + 7 * DAY)
    assert new.code not in repr(new)
    assert (await house.events())[-1] == (
        "invitation.created",
        "ann",
        "ann",
        {"invitation": invitation.id, "role": "admin"},
    )


async def test_a_code_is_nowhere_in_the_database(house):
    new = await house.invitations.create(role="user", ttl=None, creator="ann")
    async with house.database.read() as transaction:
        row = await transaction.scalar(select(InvitationRow))
    assert len(row.code_hash) == 64
    assert all(new.code not in str(value) for value in vars(row).values())
    assert all(new.code not in str(event) for event in await house.events())


async def test_codes_differ(house):
    codes = {(await house.invitations.create(role="user", ttl=None, creator="ann")).code for _ in range(50)}
    assert len(codes) == 50
    assert min(map(len, codes)) >= 32


@pytest.mark.parametrize(("ttl", "good"), [(1, True), (90 * DAY, True), (0, False), (-1, False), (90 * DAY + 1, False)])
async def test_how_long_it_may_be_good(house, ttl, good):
    if good:
        new = await house.invitations.create(role="user", ttl=ttl, creator="ann")
        assert new.invitation.expires_at == house.clock.now + ttl
    else:
        with pytest.raises(InvalidTtl, match=f"between 1 s and {90 * DAY} s"):
            await house.invitations.create(role="user", ttl=ttl, creator="ann")


@pytest.mark.parametrize("role", ["", "root", "Admin"])
async def test_no_such_role(house, role):
    with pytest.raises(InvalidRole):
        await made(house, role=role)
    assert await listed(house) == []


async def test_the_newest_come_first_page_by_page(house):
    ids = []
    for number in range(7):
        house.clock.now += number % 2  # some in the same second
        ids.append((house.clock.now, await made(house)))
    expected = [each for _, each in sorted(ids, reverse=True)]

    pages, token = [], ""
    while True:
        page = await house.invitations.page(size=3, token=token)
        pages.append([each.id for each in page.invitations])
        if not (token := page.next_token):
            break

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [each for page in pages for each in page] == expected


async def test_pages_that_there_are_not(house):
    for _ in range(2):
        await made(house)
    token = (await house.invitations.page(size=1, token="")).next_token
    with pytest.raises(InvalidArgument):
        await listed(house, size=-1)
    for forged in ("1 x", token[:-1], f"{token}A"):
        with pytest.raises(InvalidPageToken):
            await listed(house, token=forged)


async def test_only_those_that_are_good_are_listed(house):
    withdrawn, expired = await made(house), await made(house, ttl=10)
    new = await house.invitations.create(role="user", ttl=None, creator="ann")
    used, kept = new.invitation.id, await made(house)
    await house.registrar.register("bob", "test", invitation=new.code)
    await house.invitations.delete(withdrawn, actor="ann")
    house.clock.now += 10
    assert await listed(house) == [kept]
    for gone in (withdrawn, expired, used):
        with pytest.raises(InvitationNotFound):
            await house.invitations.delete(gone, actor="ann")


async def test_one_that_ends_while_it_is_used_lets_nobody_in(house):
    """A password is hashed between the look at the invitation and its use."""
    new = await house.invitations.create(role="user", ttl=10, creator="ann")
    store, now = InvitationStore(house.database), int(house.clock.now)
    async with house.users.changing() as transaction:
        assert not await store.use(transaction, new.invitation, now=now + 10)
        assert await store.use(transaction, new.invitation, now=now + 9)
        assert not await store.use(transaction, new.invitation, now=now + 9)


async def test_what_is_withdrawn_lets_nobody_in(house):
    new = await house.invitations.create(role="user", ttl=None, creator="ann")
    await house.invitations.delete(new.invitation.id, actor="ann")
    with pytest.raises(InvitationRefused):
        await house.registrar.register("bob", "test", invitation=new.code)
    assert ("invitation.deleted", "ann", "ann", {"invitation": new.invitation.id}) in await house.events()


@pytest.mark.parametrize("invitation_id", ["", "x", "x" * 5000, "a\0b"])
async def test_no_such_invitation(house, invitation_id):
    with pytest.raises(InvitationNotFound) as caught:
        await house.invitations.delete(invitation_id, actor="ann")
    assert len(str(caught.value)) < 400


async def test_the_expired_are_forgotten(house):
    await made(house, ttl=10)
    kept = await made(house, ttl=11)
    house.clock.now += 10
    await house.invitations.forget_expired()
    async with house.database.read() as transaction:
        assert list(await transaction.scalars(select(InvitationRow.id))) == [kept]


async def test_none_are_made_where_nobody_can_use_them(tmp_path):
    policy = Policy(registration=Registration.CLOSED)
    async with open_house(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}", policy=policy) as closed:
        with pytest.raises(NobodyRegisters, match="UHM_REGISTRATION=invitation"):
            await made(closed)
