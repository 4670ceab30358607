import asyncio
from dataclasses import replace
from unittest.mock import AsyncMock, Mock

import pytest

from tests.unit.machines.stand_ins import (
    BASE,
    DIGEST,
    HUNG,
    IMAGE,
    StandInExports,
    StandInProbe,
    StandInRunning,
    StandInSession,
    a_service,
    a_store,
    committed,
    recorded_artifacts,
)
from tests.unit.machines.test_store import a_machine
from uhm_common.errors import NotFound
from uhm_machines.disks import read_image_disk
from uhm_machines.errors import HostUnsuitable, PortInUse, QmpFailed, StartFailed
from uhm_machines.files import MachineFiles
from uhm_machines.machine import PortMapping, StartKind
from uhm_machines.shape import shape_of
from uhm_machines.snapshots.store import ready_key, template_key
from uhm_machines.starts import Plan, Starts, Wish
from uhm_machines.starts.spares import Spare
from uhm_machines.timeline import Timeline

COLD, TEMPLATE, READY = StartKind
SERVICE = a_service()
NO_TEMPLATE, NO_READY = "there is no template yet", "there is no snapshot of this image yet"
PORT_TAKEN = PortInUse("127.0.0.1", 80, "tcp")


class World:
    """Starts whose snapshots are on the disk, and whose QEMU is up as soon as it is asked for."""

    def __init__(self, directory):
        self.artifacts = recorded_artifacts(directory / "artifacts")
        self.store = a_store(directory / "snapshots")
        self.exports = StandInExports()
        self.probe = StandInProbe()
        self.maker = Mock()
        self.maker.want_template.return_value = NO_TEMPLATE
        self.maker.want_ready.return_value = NO_READY
        self.spares = AsyncMock(want=Mock(), claim=Mock(return_value=None))
        self.session = StandInSession()
        self.spawned: list[StandInRunning] = []
        self.spawner = Mock(spawn=AsyncMock(side_effect=self._spawn), make_disk=Mock(side_effect=self._make_disk))
        self.fails: dict[tuple[str, StartKind], Exception] = {}
        """What `load` and `hand_over` raise for a kind of snapshot."""
        self.restored: list[tuple[str, StartKind]] = []
        self.restorer = AsyncMock()
        self.restorer.load.side_effect = self._load
        self.restorer.hand_over.side_effect = self._hand_over
        self.files = MachineFiles(directory / "machine")
        self.files.make()
        self.starts = self.with_slots(4)

    def with_slots(self, parallel):
        return Starts(
            probe=self.probe, exports=self.exports, artifacts=self.artifacts, spawner=self.spawner,
            restorer=self.restorer, store=self.store, maker=self.maker, spares=self.spares, parallel=parallel,
        )  # fmt: skip

    async def _spawn(self, files, **_options):
        return self.running(files)

    async def _load(self, files, snapshot, **_options):
        self._do("load", snapshot.kind)
        return self.running(files)

    async def _hand_over(self, _running, _machine, *, kind, **_disk):
        self._do("hand_over", kind)

    def _do(self, step, kind):
        self.restored.append((step, kind))
        if error := self.fails.get((step, kind)):
            raise error

    def _make_disk(self, files, _disk):
        files.disk.touch()

    def running(self, files=None):
        made = StandInRunning(files or self.files, session=self.session)
        self.spawned.append(made)
        return made

    def disk(self):
        return read_image_disk(self.artifacts, DIGEST)

    async def shape(self):
        return await shape_of(self.disk(), self.probe, memory_mib=256, vcpus=1)

    async def have(self, *kinds):
        """Snapshots of these kinds."""
        shape = await self.shape()
        keys = {
            TEMPLATE: template_key(shape),
            READY: ready_key(shape, image_id=IMAGE.id, disk_digest=DIGEST, workload=SERVICE.workload),
        }
        return [committed(self.store, keys[kind], kind) for kind in kinds]

    async def planned(self, *kinds):
        await self.have(*kinds)
        return await self.starts.plan(a_wish())

    async def run(self, plan, **changes):
        machine = a_machine(plan.machine_id, **{"ports": ()} | changes)
        return await self.starts.run(plan, machine, self.files, Timeline())


def a_wish(**changes):
    workload = replace(SERVICE.workload, **changes.pop("workload", {}))
    wish = Wish(disk_digest=DIGEST, workload=workload, ports=(), memory_mib=256, vcpus=1, service=SERVICE)
    return replace(wish, **changes)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize(
    ("there", "wish", "kind", "reasons"),
    [
        ({TEMPLATE, READY}, {}, READY, []),
        ({READY}, {}, READY, []),
        ({TEMPLATE}, {}, TEMPLATE, [f"ready: {NO_READY}"]),
        ({}, {}, COLD, [f"ready: {NO_READY}", f"template: {NO_TEMPLATE}"]),
        ({TEMPLATE, READY}, {"fastest": TEMPLATE}, TEMPLATE, ["ready: a slower kind was asked for"]),
        (
            {TEMPLATE, READY}, {"fastest": COLD}, COLD,
            ["ready: a slower kind was asked for", "template: a slower kind was asked for"],
        ),
        ({TEMPLATE, READY}, {"has_disk": True}, TEMPLATE, ["ready: the machine has a disk of its own"]),
        ({TEMPLATE, READY}, {"workload": {"user": "app"}}, TEMPLATE, ["ready: the user was asked for"]),
        ({READY}, {"workload": {"user": "app"}}, COLD, ["ready: the user was asked for", f"template: {NO_TEMPLATE}"]),
        ({TEMPLATE, READY}, {"memory_mib": 512}, COLD, [f"ready: {NO_READY}", f"template: {NO_TEMPLATE}"]),
    ],
)  # fmt: skip
async def test_the_fastest_that_fits_is_planned(world, there, wish, kind, reasons):
    await world.have(*there)
    plan = await world.starts.plan(a_wish(**wish))
    assert (plan.kind, plan.reasons) == (kind, reasons)
    assert (plan.snapshot is None) is (kind is COLD)
    assert (plan.disk, plan.disk.boot.base, len(plan.machine_id)) == (world.disk(), BASE, 32)


def test_reasons_are_sentences(world):
    plan = Plan(
        kind=COLD, reasons=["ready: it is slow", "template: a slower kind was asked for"], disk=Mock(), shape=Mock()
    )
    assert plan.reason == "Ready: it is slow. Template: a slower kind was asked for."
    assert replace(plan, reasons=[]).reason == ""


async def test_what_is_missing_is_made_in_the_background(world):
    plan = await world.starts.plan(a_wish())
    world.maker.want_ready.assert_called_once_with(plan.shape, plan.disk, SERVICE)
    world.maker.want_template.assert_called_once_with(plan.shape, plan.disk)


@pytest.mark.parametrize("wish", [{"has_disk": True}, {"workload": {"user": "app"}}, {"fastest": COLD}])
async def test_what_would_be_of_no_use_is_not_made(world, wish):
    await world.have(TEMPLATE)
    await world.starts.plan(a_wish(**wish))
    world.maker.want_ready.assert_not_called()
    world.maker.want_template.assert_not_called()


async def test_a_plan_takes_a_spare_and_has_another_made(world):
    (snapshot,) = await world.have(READY)
    committed(world.store, "another")
    spare = Spare(machine_id="5" * 32, kind=Mock(), running=world.running())
    world.spares.claim.return_value = spare
    plan = await world.starts.plan(a_wish())
    assert (plan.spare, plan.machine_id) == (spare, spare.machine_id)
    world.spares.claim.assert_called_once_with(snapshot.key)
    (wanted,) = world.spares.want.call_args.args
    assert (wanted.snapshot, wanted.disk, wanted.shape) == (snapshot, plan.disk, plan.shape)
    assert world.store.all()[-1] == snapshot  # the one used last


async def test_a_template_rehearses_with_the_disk_at_hand(world):
    await world.have(TEMPLATE)
    await world.starts.plan(a_wish())
    (wanted,) = world.spares.want.call_args.args
    assert (wanted.is_ready, wanted.disk) == (False, world.disk())


async def test_a_machine_with_a_disk_has_its_id_already(world):
    await world.have(TEMPLATE)
    world.spares.claim.return_value = Spare(machine_id="5" * 32, kind=Mock(), running=world.running())
    assert (await world.starts.plan(a_wish(has_disk=True))).spare is None
    world.spares.claim.assert_not_called()


async def test_a_disk_that_is_gone(world):
    with pytest.raises(NotFound):
        await world.starts.plan(a_wish(disk_digest="sha256:" + "0" * 64))


async def test_a_plan_that_is_dropped_gives_its_spare_up_once(world):
    plan = await world.planned(TEMPLATE)
    await world.starts.drop(plan)
    world.spares.discard.assert_not_awaited()
    spare = plan.spare = Spare(machine_id="5" * 32, kind=Mock(), running=world.running())
    await world.starts.drop(plan)
    await world.starts.drop(plan)
    world.spares.discard.assert_awaited_once_with(spare)


@pytest.mark.parametrize(
    ("there", "kind", "phases"),
    [
        ((), COLD, ["prepare", "spawn"]),
        ((TEMPLATE,), TEMPLATE, ["prepare", "spawn", "restore"]),
        ((TEMPLATE, READY), READY, ["prepare", "spawn", "restore"]),
    ],
)
async def test_a_start_goes_as_planned(world, there, kind, phases):
    plan = await world.planned(*there)
    before, timeline = list(plan.reasons), Timeline()
    started = await world.starts.run(plan, a_machine(plan.machine_id, ports=()), world.files, timeline)
    assert (started.plan, plan.kind, plan.reasons) == (plan, kind, before)
    (running,) = world.spawned
    assert (started.process, started.channel) == (running.process, running.guest.channel)
    assert running.process.alive
    await asyncio.sleep(0.01)
    assert world.session.closed  # the monitor is free for others
    assert world.restored == ([] if kind is COLD else [("load", kind), ("hand_over", kind)])
    assert [phase.name for phase in timeline.phases()] == phases
    assert world.exports.users == {(DIGEST, plan.machine_id)}


async def test_a_spare_needs_no_loading(world):
    await world.have(READY)
    spare = Spare(machine_id="5" * 32, kind=Mock(), running=world.running())
    world.spares.claim.return_value = spare
    plan = await world.starts.plan(a_wish())
    started = await world.run(plan)
    assert started.process is spare.running.process
    assert world.restored == [("hand_over", READY)]
    await world.starts.drop(plan)
    world.spares.discard.assert_not_awaited()


async def test_only_clones_are_loaded_with_a_disk(world):
    for kind, disk in ((TEMPLATE, None), (READY, world.disk())):
        await world.run(await world.planned(kind))
        assert world.restorer.load.await_args.kwargs["disk"] == disk


async def test_ports_of_a_cold_start_are_opened_on_the_running_machine(world):
    ports = (PortMapping(host_address="127.0.0.1", host_port=8080, guest_port=80),)
    await world.run(await world.planned(), ports=ports)
    assert world.session.asked == [
        ("human-monitor-command", {"command-line": "hostfwd_add net tcp:127.0.0.1:8080-:80"})
    ]


USELESS = (StartFailed("QEMU ended."), QmpFailed("QEMU went away."), HUNG, FileNotFoundError("state"))


@pytest.mark.parametrize("error", USELESS)
@pytest.mark.parametrize("step", ["load", "hand_over"])
async def test_a_broken_snapshot_of_a_service_falls_back_to_a_template(world, step, error):
    plan = await world.planned(TEMPLATE, READY)
    broken = plan.snapshot
    world.fails[step, READY] = error
    world.files.below.touch()
    world.files.disk.write_bytes(b"a clone's")
    await world.run(plan)
    assert plan.kind is TEMPLATE
    assert plan.reasons == [f"ready: the snapshot could not be used ({str(error).rstrip('.')})"]
    assert [snapshot.kind for snapshot in world.store.all()] == [TEMPLATE]
    assert not broken.directory.exists()
    assert not world.files.below.exists()
    assert not world.files.disk.exists()
    assert [running.has_ended for running in world.spawned] == ([False] if step == "load" else [True, False])
    assert world.maker.give_up.called is (error is HUNG), "what a guest did once it would do again"


@pytest.mark.parametrize("step", ["load", "hand_over"])
@pytest.mark.parametrize(("error", "kept"), [(USELESS[0], 0), (USELESS[1], 0), (HUNG, 1), (USELESS[3], 0)])
async def test_a_template_falls_back_to_a_cold_start_and_is_not_to_blame_for_the_guest(world, step, error, kept):
    plan = await world.planned(TEMPLATE)
    world.fails[step, TEMPLATE] = error
    await world.run(plan)
    assert (plan.kind, plan.snapshot) == (COLD, None)
    assert plan.reasons == [
        f"ready: {NO_READY}", f"template: the snapshot could not be used ({str(error).rstrip('.')})",
    ]  # fmt: skip
    assert len(world.store.all()) == kept


async def test_a_machine_keeps_its_disk_where_a_template_fails(world):
    await world.have(TEMPLATE)
    plan = await world.starts.plan(a_wish(has_disk=True))
    world.files.disk.write_bytes(b"precious")
    world.fails["hand_over", TEMPLATE] = HUNG
    await world.run(plan)
    assert plan.kind is COLD
    assert world.files.disk.read_bytes() == b"precious"


@pytest.mark.parametrize("with_template", [True, False])
async def test_falling_all_the_way(world, with_template):
    plan = await world.planned(READY, *([TEMPLATE] if with_template else []))
    world.fails = {("load", READY): USELESS[0], ("hand_over", TEMPLATE): USELESS[1]}
    started = await world.run(plan)
    assert plan.kind is COLD
    assert world.store.all() == []
    assert [reason.partition(":")[0] for reason in plan.reasons] == ["ready", "template"]
    assert started.process.alive
    assert world.exports.users == {(DIGEST, plan.machine_id)}


async def test_a_spare_that_fails_is_not_used_again(world):
    await world.have(READY, TEMPLATE)
    spare = Spare(machine_id="5" * 32, kind=Mock(), running=world.running())
    world.spares.claim.return_value = spare
    plan = await world.starts.plan(a_wish())
    world.fails["hand_over", READY] = HUNG
    started = await world.run(plan)
    assert spare.running.has_ended
    assert (plan.kind, plan.spare) == (TEMPLATE, None)
    assert started.process is not spare.running.process


@pytest.mark.parametrize(("there", "kind"), [((TEMPLATE,), TEMPLATE), ((READY,), READY)])
@pytest.mark.parametrize("error", [PORT_TAKEN, HostUnsuitable("No QEMU.")])
async def test_what_no_snapshot_is_to_blame_for_is_raised(world, there, kind, error):
    plan = await world.planned(*there)
    world.fails["hand_over", kind] = error
    with pytest.raises(type(error)):
        await world.run(plan)
    assert plan.reasons == ([] if kind is READY else [f"ready: {NO_READY}"])
    assert len(world.store.all()) == 1
    assert [running.has_ended for running in world.spawned] == [True]
    assert world.exports.users == set()


async def test_a_cold_start_whose_port_is_taken_leaves_nothing(world):
    world.session.answers["human-monitor-command"] = "could not set up host forwarding rule"
    with pytest.raises(PortInUse):
        await world.run(
            await world.planned(), ports=(PortMapping(host_address="127.0.0.1", host_port=80, guest_port=80),)
        )
    assert [running.has_ended for running in world.spawned] == [True]
    assert world.exports.users == set()


async def test_a_cold_start_that_fails_is_the_end(world):
    world.spawner.spawn.side_effect = StartFailed("QEMU ended with exit code 1")
    with pytest.raises(StartFailed):
        await world.run(await world.planned())
    assert world.exports.users == set()


async def test_a_disk_that_cannot_be_exported(world):
    world.exports.error = QmpFailed("no such disk")
    with pytest.raises(QmpFailed):
        await world.run(await world.planned(TEMPLATE))
    assert (world.restored, len(world.store.all())) == ([], 1)


async def test_a_start_that_is_cancelled_leaves_nothing(world):
    plan = await world.planned(TEMPLATE)
    under_way = asyncio.Event()

    async def hang(*_args, **_options):
        under_way.set()
        await asyncio.Event().wait()

    world.restorer.hand_over.side_effect = hang
    run = asyncio.create_task(world.run(plan))
    await under_way.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [running.has_ended for running in world.spawned] == [True]
    assert (world.exports.users, len(world.store.all())) == (set(), 1)


async def test_so_many_start_at_once_and_no_more(world):
    world.starts = world.with_slots(2)
    at_once, most = 0, 0

    async def spawn(files, **_options):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return world.running(files)

    world.spawner.spawn.side_effect = spawn
    plans = [await world.planned() for _ in range(5)]
    await asyncio.gather(*(world.run(plan) for plan in plans))
    assert most == 2
