"""What the service does by itself; what it does with machines is in tests/integration/test_machines.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from tests.unit.machines.test_store import a_machine
from uhm_common.callers.identity import Identity
from uhm_common.database import Database
from uhm_common.errors import InvalidArgument
from uhm_common.idempotency import Claim
from uhm_common.paging import InvalidPageToken, PageTokens
from uhm_common.vault import Vault
from uhm_machines.errors import WrongState
from uhm_machines.requests import Bounds, MachineRequest
from uhm_machines.service import MachineService
from uhm_machines.store import MachineStore

ANNA = Identity(username="anna", session_id="s", token="t")
REQUEST = MachineRequest(image="nginx")


@pytest.fixture
async def store(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'machines.db'}")
    store = MachineStore(database)
    await store.migrate()
    yield store
    await database.close()


@pytest.fixture
def service(store):
    unused: Any = None
    return MachineService(
        store=store,
        ledger=unused,
        supervisor=Mock(live=Mock(return_value=None)),
        starts=unused,
        images=unused,
        artifacts=unused,
        bounds=Bounds(memory_mib=1024, vcpus=1),
        page_tokens=PageTokens(Vault(bytes(32))),
    )


@pytest.fixture
def claimed(monkeypatch):
    """Has the call under way be one that made a machine at an earlier attempt."""
    monkeypatch.setattr("uhm_machines.service.current_claim", lambda: Claim(resource="1" * 32))


async def test_what_an_earlier_attempt_has_made_is_answered(service, store, claimed):
    await store.insert(machine := a_machine("1" * 32))

    assert await service.create(REQUEST, identity=ANNA) == machine


async def test_what_an_earlier_attempt_has_made_does_not_run_again_once_it_is_gone(service, claimed):
    with pytest.raises(WrongState, match="has ended and was removed"):
        await service.create(REQUEST, identity=ANNA)


async def test_pages_follow_each_other(service, store):
    machines = [a_machine(f"{number:032x}", created_ns=number // 2) for number in range(7)]
    for machine in machines:
        await store.insert(machine)

    seen, token = await service.page(size=3, token="", include_ended=False, identity=ANNA)
    while token:
        page, token = await service.page(size=3, token=token, include_ended=False, identity=ANNA)
        seen += page

    assert seen == machines[::-1]


@pytest.mark.parametrize("asked", [{"include_ended": True}, {"identity": replace(ANNA, username="ben")}])
async def test_a_token_of_another_list_is_refused(service, store, asked):
    for number in range(2):
        await store.insert(a_machine(f"{number:032x}"))
    first = {"size": 1, "include_ended": False, "identity": ANNA}
    _, token = await service.page(token="", **first)

    with pytest.raises(InvalidPageToken):
        await service.page(token=token, **first | asked)


async def test_no_page_has_a_negative_size(service):
    with pytest.raises(InvalidArgument):
        await service.page(size=-1, token="", include_ended=False, identity=ANNA)
