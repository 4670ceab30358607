from unittest.mock import AsyncMock

import pytest

from tests.unit.machines.test_store import a_machine
from uhm_common.errors import InternalError
from uhm_machines.ledger import Ledger
from uhm_machines.states import Status


@pytest.mark.parametrize(("forget", "recorded"), [("strike", "delete"), ("take_back", "take_back")])
async def test_changes_are_recorded_and_told(forget, recorded):
    store = AsyncMock()
    ledger, machine = Ledger(store), a_machine()
    with ledger.subscribed(machine.id) as seen, ledger.subscribed("other") as other:
        changed = await ledger.change(machine, status=Status.STARTING)
        await getattr(ledger, forget)(changed)
        assert await seen.next() == changed
        assert await seen.next() is None
        assert seen.over
        assert not other.over
    store.update.assert_awaited_once_with(changed)
    getattr(store, recorded).assert_awaited_once_with(machine.id)
    assert not ledger._subscriptions


async def test_an_impossible_change_is_refused():
    store = AsyncMock()
    with pytest.raises(InternalError, match="created and cannot become running"):
        await Ledger(store).change(a_machine(), status=Status.RUNNING)
    store.update.assert_not_awaited()


@pytest.mark.parametrize(("status", "over"), [(Status.FAILED, True), (Status.STARTING, False)])
async def test_over_when_ended(status, over):
    ledger, machine = Ledger(AsyncMock()), a_machine()
    with ledger.subscribed(machine.id) as seen:
        await ledger.change(machine, status=status)
        assert seen.over is over
