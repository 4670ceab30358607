"""The audit log: appended, never changed, not flooded, and read by administrators."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError

import uhm_auth
from uhm_auth.audit import SELDOM_PER_MINUTE, AuditLog, Entry, Event, append, entry
from uhm_auth.models import AuditEventRow
from uhm_auth.servicers.audit import AuditServicer
from uhm_auth.stores.audit import AuditStore
from uhm_common.callers.access import access_of
from uhm_common.callers.calls import Call, set_current_call
from uhm_common.callers.identity import Identity
from uhm_common.errors import InvalidArgument
from uhm_common.paging import InvalidPageToken, PageTokens
from uhm_common.vault import Vault
from uhmalguhm.auth.v1 import audit_pb2

FIRST = 1_800_000_000_000


@pytest.fixture
def audit(database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
async def servicer(database, audit) -> AuditServicer:
    """Reads twelve events, a second apart: of Ann, of Bob by Ann, of nobody, and so on."""
    people = [("ann", "ann"), ("bob", "ann"), ("", "")]
    for number in range(12):
        username, actor = people[number % 3]
        await audit.write(
            Entry(
                event=(Event.LOGIN_FAILED, Event.USER_UPDATED)[number % 2],
                time=FIRST + number * 1000 + 5,
                actor=actor,
                username=username,
                address="192.0.2.1",
                request_id=f"r{number}",
                details={"number": str(number)},
            )
        )
    return AuditServicer(AuditStore(database), pages=PageTokens(Vault(b"k" * 32)))


async def numbers(servicer, **request) -> list[int]:
    answer = await servicer.ListEvents(audit_pb2.ListEventsRequest(**request), None)
    assert not answer.next_page_token
    return [int(event.details["number"]) for event in answer.events]


def at(second: int) -> Timestamp:
    return Timestamp(seconds=FIRST // 1000 + second)


async def test_an_event_is_told_whole(servicer):
    event = (await servicer.ListEvents(audit_pb2.ListEventsRequest(page_size=1), None)).events[0]
    assert event == audit_pb2.Event(
        id="12",
        time=Timestamp(seconds=FIRST // 1000 + 11, nanos=5_000_000),
        event="user.updated",
        actor="",
        username="",
        address="192.0.2.1",
        request_id="r11",
        details={"number": "11"},
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"username": "bob"}, [10, 7, 4, 1]),
        ({"username": "ann"}, [10, 9, 7, 6, 4, 3, 1, 0]),
        ({"username": "carl"}, []),
        ({"event": "login.failed"}, [10, 8, 6, 4, 2, 0]),
        ({"event": "login.succeeded"}, []),
        ({"start_time": at(9)}, [11, 10, 9]),
        ({"end_time": at(2)}, [1, 0]),
        ({"username": "bob", "event": "login.failed", "start_time": at(3), "end_time": at(9)}, [4]),
        ({"start_time": Timestamp(seconds=-(2**62)), "end_time": Timestamp(seconds=2**62)}, list(range(11, -1, -1))),
    ],
)
async def test_newest_first_and_filtered(servicer, request_, expected):
    assert await numbers(servicer, **request_) == expected


@pytest.mark.parametrize("wrong", [{"event": "login"}, {"username": "a\0b"}, {"page_size": -1}])
async def test_filters_that_cannot_be(servicer, wrong):
    with pytest.raises(InvalidArgument):
        await servicer.ListEvents(audit_pb2.ListEventsRequest(**wrong), None)


async def test_pages_have_everything_once_although_more_happens_meanwhile(servicer, audit):
    seen, token = [], ""
    while True:
        request = audit_pb2.ListEventsRequest(page_size=5, page_token=token, username="ann")
        answer = await servicer.ListEvents(request, None)
        seen += [int(event.details["number"]) for event in answer.events]
        await audit.write(entry(Event.LOGIN_FAILED, username="ann", number=99))
        if not (token := answer.next_page_token):
            break
    assert seen == [10, 9, 7, 6, 4, 3, 1, 0]


@pytest.mark.parametrize("other", [{"username": "bob"}, {"event": "login.failed"}, {"end_time": at(99)}])
async def test_a_page_token_is_bound_to_its_filter(servicer, other):
    token = (await servicer.ListEvents(audit_pb2.ListEventsRequest(page_size=1), None)).next_page_token
    with pytest.raises(InvalidPageToken):
        await servicer.ListEvents(audit_pb2.ListEventsRequest(page_size=1, page_token=token, **other), None)


def test_it_is_for_administrators():
    access = access_of("/uhmalguhm.auth.v1.AuditService/ListEvents")
    assert (access.admin, access.scope, access.public) == (True, "audit.read", False)


@pytest.mark.parametrize(
    "change",
    [
        update(AuditEventRow).values(username="eve"),
        delete(AuditEventRow),
        text("INSERT OR REPLACE INTO auth_audit_events SELECT * FROM auth_audit_events WHERE number = 1"),
    ],
    ids=["update", "delete", "replace"],
)
async def test_nothing_is_changed_or_deleted(servicer, database, change):
    with pytest.raises(IntegrityError, match="append-only"):
        async with database.write() as transaction:
            await transaction.execute(change)
    assert len(await numbers(servicer)) == 12


async def test_an_entry_shares_the_fate_of_what_it_tells_of(database):
    async def fail_after_appending():
        async with database.write() as transaction:
            await append(transaction, entry(Event.USER_DELETED, username="ann"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_appending()
    async with database.read() as session:
        assert list(await session.scalars(select(AuditEventRow))) == []


async def test_an_entry_says_where_the_call_came_from():
    set_current_call(Call(request_id="r1", address="192.0.2.1", user_agent="curl"))
    made = entry(Event.LOGIN_FAILED, username="ann", actor="bob", reason="password", count=3)
    assert (made.request_id, made.address, made.actor) == ("r1", "192.0.2.1", "bob")
    assert made.details == {"reason": "password", "count": "3"}


async def test_an_entry_fits_whatever_was_sent(audit, database):
    await audit.write(entry(Event.LOGIN_FAILED, username="a\0b" * 100, actor="x" * 100, reason="\0" * 5000))
    async with database.read() as session:
        row = await session.scalar(select(AuditEventRow))
    assert (len(row.username), len(row.actor)) == (64, 64)
    assert "\0" not in row.username + row.details


async def test_the_same_is_written_once_a_minute(database):
    now = [0.0]
    audit = AuditLog(database, clock=lambda: now[0])

    async def written(about, event=Event.API_KEY_REFUSED) -> bool:
        return await audit.write_seldom(entry(event, username=""), about=about)

    assert [await written("k1"), await written("k1"), await written("k2")] == [True, False, True]
    assert await written("k1", Event.LOGIN_LIMITED)
    now[0] += 59.9
    assert not await written("k1")
    now[0] += 0.1
    assert [await written("k1"), await written("k1")] == [True, False]


async def test_refused_calls_are_noted(audit, database):
    method = "/uhmalguhm.auth.v1.AuditService/ListEvents"
    for _ in range(3):
        await audit.write_denied(method, Identity(username="bob", session_id="s1", token="t"))
    async with database.read() as session:
        rows = list(await session.scalars(select(AuditEventRow)))
    assert [(row.event, row.actor, row.details) for row in rows] == [
        ("access.denied", "bob", f'{{"method": "{method}"}}')
    ]


async def test_no_flood_of_different_things_fills_the_log(database):
    audit = AuditLog(database, clock=lambda: 0.0)
    written = [
        await audit.write_seldom(entry(Event.API_KEY_REFUSED, username=""), about=str(number))
        for number in range(SELDOM_PER_MINUTE + 50)
    ]
    assert sum(written) == SELDOM_PER_MINUTE
    assert await audit.write_seldom(entry(Event.LOGIN_LIMITED, username=""), about="another event")


async def test_what_could_not_be_written_is_written_the_next_time(database, monkeypatch):
    audit = AuditLog(database, clock=lambda: 0.0)
    with monkeypatch.context() as away:
        away.setattr(audit, "write", raises(OSError("away")))
        with pytest.raises(OSError, match="away"):
            await audit.write_seldom(entry(Event.LOGIN_LIMITED, username=""), about="ann")
    assert await audit.write_seldom(entry(Event.LOGIN_LIMITED, username=""), about="ann")


def raises(error):
    async def fail(_appended):
        raise error

    return fail


def test_every_event_is_recorded_somewhere():
    """Each member is used; tests/integration/test_guard.py sees each of them happen."""
    sources = Path(uhm_auth.__file__).parent.rglob("*.py")
    used = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Event"
    }
    assert used == set(Event.__members__)
