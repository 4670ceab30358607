"""Every change of a machine goes through here: checked against the table of states, recorded, and told to watchers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uhm_common.errors import InternalError
from uhm_common.idempotency import current_claim
from uhm_machines.states import ENDED, may_follow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uhm_machines.machine import Machine
    from uhm_machines.store import MachineStore

__all__ = ["Ledger", "Subscription"]


class Subscription:
    """The changes of one machine, from the moment it was made."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Machine | None] = asyncio.Queue()
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the machine has ended, or is deleted, since."""
        return self._over

    def put(self, machine: Machine | None) -> None:
        """Adds a change; None: it was deleted."""
        self._over = machine is None or machine.status in ENDED
        self._queue.put_nowait(machine)

    async def next(self) -> Machine | None:
        """The next change, waited for; None once the machine is deleted."""
        return await self._queue.get()


class Ledger:
    """Writes to the store, and tells."""

    def __init__(self, store: MachineStore) -> None:
        self._store = store
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)

    async def open(self, machine: Machine) -> None:
        """Records a new machine, and that the call that is being handled has made it. Raises NameTaken."""
        await self._store.insert(machine, claim=current_claim())

    async def change(self, machine: Machine, **changes: Any) -> Machine:
        """Records a machine with some fields changed, and answers it. Raises InternalError for an impossible status."""
        changed = replace(machine, **changes)
        if changed == machine:
            return machine
        if not may_follow(changed.status, on=machine.status):
            raise InternalError(f"Machine {machine.id} is {machine.status} and cannot become {changed.status}.")
        await self._store.update(changed)
        self._tell(machine.id, changed)
        return changed

    async def strike(self, machine: Machine) -> None:
        """Forgets a machine."""
        await self._store.delete(machine.id)
        self._tell(machine.id, None)

    async def take_back(self, machine: Machine) -> None:
        """Forgets a machine, and that the call which made it has: repeated, it makes another."""
        await self._store.take_back(machine.id)
        self._tell(machine.id, None)

    @contextmanager
    def subscribed(self, machine_id: str) -> Iterator[Subscription]:
        """Changes of a machine while the block runs."""
        subscription = Subscription()
        self._subscriptions[machine_id].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[machine_id].discard(subscription)
            if not self._subscriptions[machine_id]:
                del self._subscriptions[machine_id]

    def _tell(self, machine_id: str, machine: Machine | None) -> None:
        for subscription in self._subscriptions.get(machine_id, ()):
            subscription.put(machine)
