"""What can be done with machines, for their owners."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from uhm_common.idempotency import current_claim
from uhm_common.logs import get_logger
from uhm_common.paging import Listing, page_size, pair
from uhm_machines.errors import InvalidRequest, NameTaken, WrongState
from uhm_machines.logfiles import follow_log
from uhm_machines.machine import Machine, StartKind
from uhm_machines.names import random_name
from uhm_machines.output import LogSource
from uhm_machines.requests import checked
from uhm_machines.starts.wish import Wish, named, service_of
from uhm_machines.states import ENDED
from uhm_machines.timeline import Timeline
from uhm_machines.workload import workload_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uhm_common.artifacts import ArtifactStore
    from uhm_common.callers.identity import Identity
    from uhm_common.paging import PageTokens
    from uhm_machines.images import Image, Images
    from uhm_machines.ledger import Ledger
    from uhm_machines.live import LiveMachine
    from uhm_machines.output import LogEntry
    from uhm_machines.requests import Bounds, MachineRequest, WaitFor
    from uhm_machines.starts import Plan, Starts
    from uhm_machines.store import MachineStore
    from uhm_machines.supervisor import Supervisor

__all__ = ["MachineService"]

log = get_logger()

DEFAULT_GRACE_SECONDS: Final = 10
MAX_GRACE_SECONDS: Final = 3600
_NAME_TRIES: Final = 10


class MachineService:
    """Machines, each seen by its owner only: for anyone else there is no such machine."""

    def __init__(
        self,
        *,
        store: MachineStore,
        ledger: Ledger,
        supervisor: Supervisor,
        starts: Starts,
        images: Images,
        artifacts: ArtifactStore,
        bounds: Bounds,
        page_tokens: PageTokens,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._supervisor = supervisor
        self._starts = starts
        self._images = images
        self._artifacts = artifacts
        self._bounds = bounds
        self._page_tokens = page_tokens

    async def create(self, request: MachineRequest, *, identity: Identity) -> Machine:
        """Makes a machine and starts it; answers when it has come as far as the request waits for, or has ended.

        Where it cannot be started nothing is left of it. A caller that goes away does not end what was begun.
        """
        timeline = Timeline()
        request = checked(request, self._bounds)
        if made := current_claim().resource:
            return await self._made_before(made, request.wait)
        image = await self._images.resolve(request.image, identity=identity)
        wish = Wish(
            disk_digest=image.disk_digest,
            workload=workload_of(request, image.config),
            ports=request.ports,
            memory_mib=request.memory_mib,
            vcpus=request.vcpus,
            fastest=request.fastest,
            service=service_of(image),
        )
        live = await asyncio.shield(
            self._supervisor.spawn(self._create(request, image, wish, owner=identity.username, timeline=timeline))
        )
        return await live.reached(request.wait)

    async def _made_before(self, machine_id: str, wait: WaitFor) -> Machine:
        """The machine that an earlier attempt at the same call has made. Raises WrongState where it is gone."""
        machine = await self._store.get(machine_id)
        if machine is None:
            raise WrongState(
                f"Machine {machine_id[:12]} was made for this before, has ended and was removed.",
                hint="Send another idempotency key to make another.",
                machine=machine_id,
            )
        live = self._supervisor.live(machine_id)
        return machine if live is None else await live.reached(wait)

    async def get(self, reference: str, *, identity: Identity) -> Machine:
        """One machine. Raises MachineNotFound, AmbiguousId."""
        return await self._store.find(identity.username, reference)

    async def page(
        self, *, size: int, token: str, include_ended: bool, identity: Identity
    ) -> tuple[list[Machine], str]:
        """A page of the caller's machines, and the next page's token, empty on the last. Raises InvalidPageToken."""
        size = page_size(size)
        listing = Listing(name="machines", owner=identity.username, filter=(str(include_ended),))
        before = self._page_tokens.read_pair(token, of=listing)
        found = await self._store.page(identity.username, limit=size + 1, before=before, include_ended=include_ended)
        return self._page_tokens.cut(found, size=size, of=listing, position=lambda last: pair(last.created_ns, last.id))

    async def stop(self, reference: str, *, grace: int | None, identity: Identity) -> Machine:
        """Ends a machine; one that has ended already is answered as it is."""
        grace = DEFAULT_GRACE_SECONDS if grace is None else grace
        if not 0 <= grace <= MAX_GRACE_SECONDS:
            raise InvalidRequest(
                f"grace_seconds is {grace}; it can be from 0 to {MAX_GRACE_SECONDS}.", field="grace_seconds"
            )
        machine = await self._store.find(identity.username, reference)
        async with self._supervisor.lock(machine.id):
            live = self._supervisor.live(machine.id)
        if live is None:
            return await self._store.find(identity.username, machine.id)
        await asyncio.shield(self._supervisor.spawn(live.stop(grace=grace)))
        return live.machine

    async def start(
        self, reference: str, *, wait: WaitFor, fastest: StartKind = StartKind.READY, identity: Identity
    ) -> Machine:
        """Starts a machine that has ended, with its disk as it is. Raises WrongState where it has not."""
        timeline = Timeline()
        machine = await self._store.find(identity.username, reference)
        live = await asyncio.shield(self._supervisor.spawn(self._start(machine, fastest, timeline)))
        return await live.reached(wait)

    async def delete(self, reference: str, *, force: bool, identity: Identity) -> None:
        """Deletes a machine. Raises WrongState where it has not ended, unless forced."""
        machine = await self._store.find(identity.username, reference)
        await asyncio.shield(self._supervisor.spawn(self._delete(machine, force=force)))

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Deletes all machines that an owner made before that time, whatever they do."""
        for machine in await self._store.owned(owner, before=before):
            await asyncio.shield(self._supervisor.spawn(self._delete(machine, force=True)))

    async def watch(self, reference: str, *, identity: Identity) -> AsyncIterator[Machine]:
        """A machine now and at every change, until it has ended or is deleted."""
        machine = await self._store.find(identity.username, reference)
        with self._ledger.subscribed(machine.id) as changes:
            current: Machine | None = await self._store.find(identity.username, machine.id)
            while current is not None:
                yield current
                if current.status in ENDED:
                    return
                current = await changes.next()

    async def logs(
        self, reference: str, *, source: LogSource, follow: bool, tail: int | None, identity: Identity
    ) -> AsyncIterator[LogEntry]:
        """What a machine wrote, the oldest first; with `follow` until it has ended."""
        if tail is not None and tail < 0:
            raise InvalidRequest(f"tail is {tail}; it cannot be negative.", field="tail")
        machine = await self._store.find(identity.username, reference)
        files = self._supervisor.files(machine.id)
        path = files.output if source is LogSource.OUTPUT else files.console
        with self._ledger.subscribed(machine.id) as changes:
            machine = await self._store.find(identity.username, machine.id)
            goes_on = follow and machine.status not in ENDED
            async for entry in follow_log(path, source, tail=tail, until=(lambda: changes.over) if goes_on else None):
                yield entry

    async def _create(
        self, request: MachineRequest, image: Image, wish: Wish, *, owner: str, timeline: Timeline
    ) -> LiveMachine:
        plan = await self._starts.plan(wish)
        try:
            machine = Machine(
                id=plan.machine_id,
                name=request.name,
                owner=owner,
                image_id=image.id,
                image_reference=image.reference,
                disk_digest=image.disk_digest,
                workload=named(wish.workload, plan.machine_id),
                memory_mib=request.memory_mib,
                vcpus=request.vcpus,
                ports=request.ports,
                auto_remove=request.auto_remove,
                created_ns=time.time_ns(),
            )
            return await self._launch_new(machine, plan, timeline)
        finally:
            await self._starts.drop(plan)

    async def _launch_new(self, machine: Machine, plan: Plan, timeline: Timeline) -> LiveMachine:
        async with self._supervisor.lock(machine.id):
            try:
                await asyncio.to_thread(self._make_room, machine)
                return await self._supervisor.launch(machine, plan, timeline, record=self._record)
            except BaseException:
                await self._starts.drop(plan)
                await self._supervisor.take_back(machine)
                raise

    def _make_room(self, machine: Machine) -> None:
        """Keeps its image's disk from being deleted, and makes its directory."""
        self._artifacts.take_lease(machine.disk_digest, holder=machine.id)
        self._supervisor.files(machine.id).make()

    async def _record(self, machine: Machine, **changes: Any) -> Machine:
        """Records a new machine with changes, under a name of its own where it has none. Raises NameTaken."""
        machine = replace(machine, **changes)
        if machine.name:
            try:
                await self._ledger.open(machine)
            except NameTaken:
                await self._make_way(machine)
                await self._ledger.open(machine)
            return machine
        for attempt in range(_NAME_TRIES):
            named = replace(machine, name=random_name(numbered=attempt > 1))
            try:
                await self._ledger.open(named)
            except NameTaken:
                continue
            return named
        raise NameTaken(named.name)

    async def _make_way(self, machine: Machine) -> None:
        """Removes a machine of the same name that has ended and is about to be deleted anyway."""
        other = await self._store.find(machine.owner, machine.name)
        async with self._supervisor.lock(other.id):
            if other.auto_remove and other.status in ENDED and self._supervisor.live(other.id) is None:
                await self._supervisor.remove(other)

    async def _start(self, machine: Machine, fastest: StartKind, timeline: Timeline) -> LiveMachine:
        async with self._supervisor.lock(machine.id):
            machine = await self._store.find(machine.owner, machine.id)
            if machine.status not in ENDED:
                raise WrongState(f"Machine {machine.name} is {machine.status}.", hint="Stop it first.")
            wish = Wish(
                disk_digest=machine.disk_digest,
                workload=machine.workload,
                ports=machine.ports,
                memory_mib=machine.memory_mib,
                vcpus=machine.vcpus,
                fastest=fastest,
                has_disk=True,
            )
            plan = await self._starts.plan(wish)
            return await self._supervisor.launch(machine, plan, timeline, record=self._ledger.change)

    async def _delete(self, machine: Machine, *, force: bool) -> None:
        while True:
            async with self._supervisor.lock(machine.id):
                live = self._supervisor.live(machine.id)
                if live is None:
                    await self._supervisor.remove(machine)
                    return
            if not force:
                raise WrongState(
                    f"Machine {machine.name} is {live.machine.status}.", hint="Stop it first, or delete it by force."
                )
            await live.kill()
