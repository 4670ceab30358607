"""API keys: making, listing, verifying and ending them."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import func, insert, select, update

from uhm_auth.api_keys import ApiKeys
from uhm_auth.audit import AuditLog
from uhm_auth.errors import ApiKeyNotFound, ApiKeyRefused, InvalidApiKey, InvalidTtl, TooManyApiKeys
from uhm_auth.models import ApiKeyRow, AuditEventRow, RevocationRow, UserRow
from uhm_auth.revocation_feed import RevocationFeed
from uhm_auth.scopes import all_scopes
from uhm_auth.stores.api_keys import ApiKeyStore, revoke_keys_of, suspend_keys_of
from uhm_auth.stores.revocations import RevocationStore
from uhm_common.callers.identity import Identity
from uhm_common.callers.revocations import Revocations
from uhm_common.paging import InvalidPageToken, PageTokens
from uhm_common.vault import Vault

DAY = 24 * 3600
NOW = 1_800_000_000
SCOPES = ("images.read", "machines.write")


def identity(username, role="user") -> Identity:
    return Identity(username=username, session_id="s1", token="t", role=role)


ANN, BOB = identity("ann", "admin"), identity("bob")


class Hand:
    """A clock that only the test moves."""

    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def revocations(hand) -> Revocations:
    return Revocations(clock=hand)


@pytest.fixture
async def keys(database, hand, revocations) -> ApiKeys:
    """With two users: Ann, an administrator, and Bob."""
    async with database.write() as transaction:
        for user in (ANN, BOB):
            row = {"username": user.username, "password_hash": "", "role": user.role, "created_at": NOW}
            await transaction.execute(insert(UserRow).values(row))
    return ApiKeys(
        ApiKeyStore(database),
        AuditLog(database),
        feed=RevocationFeed(RevocationStore(database), revocations, clock=hand),
        pages=PageTokens(Vault(b"k" * 32)),
        most=5,
        clock=hand,
    )


async def make(keys, owner=BOB, *, name="ci", scopes=SCOPES, ttl=None):
    return await keys.create(owner, name=name, scopes=scopes, ttl=ttl)


async def change(database, username, **values) -> int:
    async with database.write() as transaction:
        await transaction.execute(update(UserRow).where(UserRow.username == username).values(values))
        return await transaction.scalar(select(UserRow.id).where(UserRow.username == username))


async def events(database) -> list[tuple[str, str, dict]]:
    async with database.read() as session:
        rows = await session.scalars(select(AuditEventRow).order_by(AuditEventRow.number))
        return [(row.event, row.username, json.loads(row.details)) for row in rows]


async def listed(keys, owner=BOB) -> list[str]:
    return [key.name for key in (await keys.page(owner, size=50, token=""))[0]]


async def test_a_key_says_whose_it_is_and_what_for(keys):
    made = await make(keys, scopes=[*reversed(SCOPES), SCOPES[0]], ttl=DAY)

    verified = await keys.verify(made.text)

    assert (verified.id, verified.username, verified.role) == (made.key.id, "bob", "user")
    assert verified.scopes == frozenset(SCOPES)
    assert verified.expires_at == made.key.expires_at == NOW + DAY
    assert made.key.scopes == tuple(sorted(SCOPES))


async def test_its_form(keys):
    texts = {(await make(keys)).text for _ in range(5)}
    assert len(texts) == 5
    for text in texts:
        prefix, key_id, secret = text.split("_", 2)
        assert (prefix, len(key_id), len(secret)) == ("uhm", 16, 43)


async def test_the_secret_is_nowhere_but_in_the_answer(keys, database):
    made = await make(keys)
    secret = made.text.rpartition(f"{made.key.id}_")[2]
    async with database.read() as session:
        row = await session.scalar(select(ApiKeyRow))
    assert secret not in str(vars(row))
    assert secret not in repr(made)
    assert secret not in str(await events(database))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda _: "uhm_",
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text + "\n",
        lambda text: text.replace("uhm_", "UHM_"),
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text[:4] + "0" * 16 + text[20:],
        lambda text: text[:4] + "\0" * 16 + text[20:],
        lambda _: "é" * 64,
    ],
    ids=range(10),
)
async def test_what_is_no_key(keys, database, spoil):
    made = await make(keys)
    with pytest.raises(ApiKeyRefused, match="The API key is not good"):
        await keys.verify(spoil(made.text))
    assert (await events(database))[-1][0] == "api_key.refused"


async def test_every_refusal_reads_the_same(keys, database, hand):
    deleted, expired, orphan = await make(keys), await make(keys, ttl=10), await make(keys, ANN)
    await keys.delete(BOB, deleted.key.id)
    await change(database, "ann", disabled_at=NOW)
    hand.now += 10
    refusals = set()
    for text in (deleted.text, expired.text, orphan.text, f"uhm_{'0' * 16}_{'A' * 43}", deleted.text[:-2] + "xx"):
        with pytest.raises(ApiKeyRefused) as caught:
            await keys.verify(text)
        refusals.add((str(caught.value), str(caught.value.to_status())))
    assert len(refusals) == 1
    reasons = [details["reason"] for event, _, details in await events(database) if event == "api_key.refused"]
    assert reasons == ["deleted", "expired", "user", "unknown", "secret"]


async def test_expiry(keys, hand):
    made = await make(keys, ttl=10)
    hand.now += 9
    await keys.verify(made.text)
    hand.now += 1
    with pytest.raises(ApiKeyRefused):
        await keys.verify(made.text)


@pytest.mark.parametrize("state", ["disabled_at", "deleted_at"])
async def test_a_user_who_may_not(keys, database, state):
    made = await make(keys)
    await change(database, "bob", **{state: NOW})
    with pytest.raises(ApiKeyRefused):
        await keys.verify(made.text)
    await change(database, "bob", **{state: None})
    assert (await keys.verify(made.text)).username == "bob"


async def test_a_key_has_the_role_that_its_user_has_now(keys, database):
    made = await make(keys)
    await change(database, "bob", role="admin")
    assert (await keys.verify(made.text)).role == "admin"


async def test_deleting_tells_every_service_in_the_same_transaction(keys, database, revocations):
    made = await make(keys)

    await keys.delete(BOB, made.key.id)

    assert made.key.id in revocations
    assert await listed(keys) == []
    async with database.read() as session:
        assert list(await session.scalars(select(RevocationRow.id))) == [made.key.id]
    assert (await events(database))[-1] == ("api_key.deleted", "bob", {"key": made.key.id})


async def test_deleting_what_is_not_there_or_not_yours(keys, database):
    made = await make(keys)
    for owner, key_id in [(ANN, made.key.id), (BOB, "0" * 16), (BOB, "x"), (BOB, "\0"), (BOB, "")]:
        with pytest.raises(ApiKeyNotFound):
            await keys.delete(owner, key_id)
    with pytest.raises(ApiKeyNotFound) as caught:
        await keys.delete(BOB, made.text)
    assert made.text[:20] not in str(caught.value.to_status())
    await keys.delete(BOB, made.key.id)
    with pytest.raises(ApiKeyNotFound):
        await keys.delete(BOB, made.key.id)
    assert [event for event, *_ in await events(database)] == ["api_key.created", "api_key.deleted"]


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "a\0b", "\u202eevil"])
async def test_names_that_cannot_be(keys, name):
    with pytest.raises(InvalidApiKey, match="1 to 64 printable"):
        await make(keys, name=name)


@pytest.mark.parametrize("scopes", [[], ["images"], ["images.read", "images.delete"], ["*"], [""]])
async def test_scopes_that_cannot_be(keys, scopes):
    with pytest.raises(InvalidApiKey, match=r"machines\.write"):
        await make(keys, scopes=scopes)


async def test_scopes_are_those_that_methods_ask_for(keys, database):
    ordinary = {
        f"{noun}.{verb}" for noun in ("images", "machines", "registries", "storage") for verb in ("read", "write")
    }
    expected = dict.fromkeys(ordinary | {"account.read"}, False) | {"audit.read": True, "users.read": True}
    assert all_scopes() == expected
    made = await make(keys, ANN, scopes=list(all_scopes()))
    assert (await keys.verify(made.text)).scopes == set(expected)
    assert len(" ".join(expected)) <= ApiKeyRow.__table__.c.scopes.type.length


async def test_scopes_for_administrators_only(keys):
    with pytest.raises(InvalidApiKey, match=r"'audit\.read' for you"):
        await make(keys, BOB, scopes=["audit.read"])


@pytest.mark.parametrize("ttl", [0, -1, 3651 * DAY, 2**62])
async def test_lifetimes_that_cannot_be(keys, ttl):
    with pytest.raises(InvalidTtl):
        await make(keys, ttl=ttl)


async def test_how_many_a_user_may_have(keys, hand):
    answers = await asyncio.gather(*(make(keys, name=f"k{n}", ttl=DAY) for n in range(9)), return_exceptions=True)
    made = [answer for answer in answers if not isinstance(answer, Exception)]
    assert [len(made), {type(answer) for answer in answers if answer not in made}] == [5, {TooManyApiKeys}]

    await make(keys, ANN)
    await keys.delete(BOB, made[0].key.id)
    await make(keys, ttl=DAY)
    with pytest.raises(TooManyApiKeys, match="You have 5"):
        await make(keys)
    hand.now += DAY
    await make(keys)


async def test_pages_newest_first(keys, hand):
    for number in range(5):
        hand.now += number % 2  # some are as old as each other
        await make(keys, name=f"k{number}")
    await make(keys, ANN, name="hers")

    seen, token = [], ""
    while True:
        page, token = await keys.page(BOB, size=2, token=token)
        seen.append(page)
        if not token:
            break
    assert [len(page) for page in seen] == [2, 2, 1]
    order = [(key.created_at, key.id) for page in seen for key in page]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == 5


async def test_a_page_token_is_good_for_its_owner_only(keys):
    for _ in range(3):
        await make(keys)
    _, token = await keys.page(BOB, size=2, token="")
    with pytest.raises(InvalidPageToken):
        await keys.page(ANN, size=2, token=token)


async def test_when_a_key_was_used_is_known_to_within_a_minute_without_a_write_per_call(
    keys, database, hand, monkeypatch
):
    made = await make(keys)
    writes = []
    write = database.write
    monkeypatch.setattr(database, "write", lambda: writes.append(hand.now) or write())
    for _ in range(130):
        await keys.verify(made.text)
        hand.now += 1
        used_at = (await keys.page(BOB, size=1, token=""))[0][0].used_at
        assert hand.now - 60 <= used_at <= hand.now
    assert len(writes) == 3


async def test_refusals_do_not_flood_the_audit_log(keys, database):
    made = await make(keys)
    await keys.delete(BOB, made.key.id)
    for number in range(300):
        for text in (made.text, f"uhm_{number:016x}_{'A' * 43}", f"nonsense {number}"):
            with pytest.raises(ApiKeyRefused):
                await keys.verify(text)
    assert [event for event, *_ in await events(database)].count("api_key.refused") == 3


async def test_who_makes_and_deletes_keys_all_day_fills_nothing(keys, database, hand, revocations):
    for _ in range(30):
        await keys.delete(BOB, (await make(keys)).key.id)
        await make(keys, ttl=1)
        hand.now += 20
    hand.now += 60
    revocations.add([])
    assert len(revocations) == 0
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(ApiKeyRow)) <= 6


async def test_of_the_keys_that_have_ended_the_last_are_kept(keys, hand):
    good = await make(keys, name="good")
    for number in range(9):
        made = await make(keys, name=f"k{number}")
        hand.now += 1
        await keys.delete(BOB, made.key.id)
    await make(keys, name="last")
    assert sorted(await listed(keys)) == ["good", "last"]
    assert (await keys.verify(good.text)).username == "bob"


async def test_suspended_keys_are_refused_until_no_service_remembers_them(keys, database, hand, revocations):
    """What follows a role that was taken or a user who was disabled; where the user may, a key comes back by itself."""
    made = await make(keys)
    user_id = await change(database, "bob", role="user")
    for _ in range(2):
        async with database.write() as transaction:
            await suspend_keys_of(transaction, user_id, now=int(hand.now))
    await keys._feed.refresh()
    assert made.key.id in revocations
    hand.now += 15
    assert made.key.id not in revocations
    assert (await keys.verify(made.text)).username == "bob"


async def test_a_deleted_users_keys_end_for_good(keys, database, hand, revocations):
    made = await make(keys)
    user_id = await change(database, "bob", deleted_at=NOW)
    async with database.write() as transaction:
        await revoke_keys_of(transaction, user_id, now=int(hand.now))
    await keys._feed.refresh()
    assert made.key.id in revocations
    await change(database, "bob", deleted_at=None)
    with pytest.raises(ApiKeyRefused):
        await keys.verify(made.text)


async def test_keys_that_ended_a_month_ago_are_forgotten(keys, database, hand):
    deleted = await make(keys, name="deleted")
    await make(keys, name="expired", ttl=DAY)
    await make(keys, name="good")
    await keys.delete(BOB, deleted.key.id)
    assert await keys.forget_ended() == 0
    assert sorted(await listed(keys)) == ["expired", "good"]
    hand.now += 32 * DAY
    assert await keys.forget_ended() == 2
    assert await listed(keys) == ["good"]
