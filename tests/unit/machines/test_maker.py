import asyncio
import json
from dataclasses import replace
from unittest.mock import AsyncMock, Mock

import pytest

from tests.unit.machines.stand_ins import (
    DIGEST,
    DISK,
    HUNG,
    IMAGE,
    SHAPE,
    StandInExports,
    StandInGuest,
    StandInRunning,
    StandInSession,
    a_service,
    a_store,
    until,
)
from uhm_common.process import ProcessFailed
from uhm_machines.channel import GuestEvent
from uhm_machines.errors import QmpFailed, StartFailed
from uhm_machines.machine import StartKind
from uhm_machines.qemu.process import DetachedProcess
from uhm_machines.snapshots import health, maker
from uhm_machines.snapshots.maker import SnapshotMaker
from uhm_machines.snapshots.store import MAKING, ready_key, template_key

SERVICE = a_service()
TEMPLATE_KEY = template_key(SHAPE)
READY_KEY = ready_key(SHAPE, image_id=IMAGE.id, disk_digest=DIGEST, workload=SERVICE.workload)


class World:
    """A maker that makes things, of a QEMU that is up as soon as it is asked for."""

    def __init__(self, directory, *, enabled=True, max_bytes=1 << 40):
        self.store = a_store(directory / "snapshots", max_bytes=max_bytes)
        self.exports = StandInExports()
        self.says: dict[str, object] = {}
        self.session = StandInSession()
        self.running: list[StandInRunning] = []
        self.spawner = Mock(
            spawn=AsyncMock(side_effect=self._spawn),
            make_disk=Mock(side_effect=lambda files, _disk: files.disk.write_bytes(b"written")),
        )
        self.users_while_up: list[set[tuple[str, str]]] = []
        self.maker = SnapshotMaker(
            directory / "snapshots",
            store=self.store,
            spawner=self.spawner,
            exports=self.exports,
            enabled=enabled,
        )
        self.made: list[StartKind] = []
        self.maker.made = lambda snapshot, _shape, _disk: self.made.append(snapshot.kind)
        self.making = asyncio.create_task(self.maker.run())

    async def _spawn(self, files, *, memory, **_options):
        memory.path.write_bytes(bytes(1 << 20))
        files.output.write_bytes(b"of the one that is saved")
        self.users_while_up.append(set(self.exports.users))
        made = StandInRunning(files, guest=StandInGuest(**self.says), session=self.session)
        self.running.append(made)
        return made

    async def stop(self):
        self.making.cancel()
        await asyncio.wait([self.making])

    def want(self, kind):
        if kind is StartKind.TEMPLATE:
            return self.maker.want_template(SHAPE, DISK)
        return self.maker.want_ready(SHAPE, DISK, SERVICE)

    async def have(self, kind):
        key = TEMPLATE_KEY if kind is StartKind.TEMPLATE else READY_KEY
        self.want(kind)
        await until(lambda: kind in self.made)
        return self.store.find(key)

    async def fail(self, kind):
        """Has one made that cannot be; answers what is said of it then."""
        self.want(kind)
        await until(lambda: "could not be made" in self.want(kind))
        return self.want(kind)

    @property
    def leftovers(self):
        return list(self.store._directory.glob(f"{MAKING}*"))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(health, "_REST_SECONDS", 0.001)
    monkeypatch.setattr(health, "_CHECK_SECONDS", 0.001)
    monkeypatch.setattr(maker, "_END_SECONDS", 0.05)


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.stop()


async def test_a_template_waits_for_its_image(world):
    assert world.want(StartKind.TEMPLATE) == ("there is none for 256 MiB and 1 processor yet; it is being made")
    snapshot = await world.have(StartKind.TEMPLATE)
    assert (snapshot.kind, snapshot.image_id, snapshot.disk_digest) == (StartKind.TEMPLATE, "", "")
    assert world.running[0].guest.told == ["waiting"]
    asked = world.spawner.spawn.await_args.kwargs
    assert (asked["template"], asked["memory"].shared) == (True, True)
    assert [node["node-name"] for node in asked["blocks"]] == ["blank", "disk"]
    assert world.users_while_up == [set()]
    assert world.running[0].has_ended
    world.spawner.make_disk.assert_not_called()


async def test_a_service_is_frozen_when_it_serves(world):
    snapshot = await world.have(StartKind.READY)
    assert (snapshot.kind, snapshot.image_id, snapshot.disk_digest) == (StartKind.READY, IMAGE.id, DIGEST)
    assert world.running[0].guest.told == ["waiting", "run", "started", "ready", "freeze", "frozen"]
    run = dict(world.running[0].guest.heard)["run"].split(b"\0")
    assert run[run.index(b"hostname") + 1] == b"0" * 12  # as long as those of clones
    assert run[run.index(b"machine-id") + 1] == b"0" * 32
    assert not world.spawner.spawn.await_args.kwargs["template"]
    assert [digest for digest, _ in world.users_while_up[0]] == [DIGEST]
    assert world.exports.users == set()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (StartKind.TEMPLATE, {"memory", "state", "snapshot.json"}),
        (StartKind.READY, {"memory", "state", "snapshot.json", "disk.qcow2"}),
    ],
)
async def test_what_is_kept_of_it(world, kind, names):
    snapshot = await world.have(kind)
    assert {path.name for path in snapshot.directory.iterdir()} == names
    assert snapshot.memory.stat().st_size == 1 << 20
    assert snapshot.bytes < 1 << 18  # its memory holds nothing but holes
    assert world.leftovers == []
    stopped, *_, quit_ = world.session.commands
    assert (stopped, quit_) == ("stop", "quit")


async def test_a_health_check_goes_before_ports(tmp_path):
    world = World(tmp_path)
    check = Mock(command=("true",), interval_ns=0, timeout_ns=1_000_000, start_period_ns=0, retries=1)
    world.says["checked"] = ["1", "0"]
    world.maker.want_ready(SHAPE, DISK, replace(SERVICE, image=a_service(healthcheck=check).image))
    await until(lambda: world.made)
    assert world.running[0].guest.told[2:] == ["started", "check", "checked", "check", "checked", "freeze", "frozen"]
    await world.stop()


async def test_one_that_is_there_is_told_of_and_not_made_again(world):
    await world.have(StartKind.TEMPLATE)
    world.want(StartKind.TEMPLATE)
    assert world.made == [StartKind.TEMPLATE] * 2
    assert len(world.running) == 1


async def test_wishes_are_fulfilled_once_each_and_in_order(world):
    for kind in (StartKind.READY, StartKind.TEMPLATE, StartKind.READY):
        assert "it is being made" in world.want(kind)
    await until(lambda: len(world.made) == 2)
    await asyncio.sleep(0.01)
    assert world.made == [StartKind.READY, StartKind.TEMPLATE]
    assert len(world.running) == 2


@pytest.mark.parametrize(
    ("says", "answers", "said"),
    [
        ({"waiting": HUNG}, {}, "it did not get so far"),
        ({"started": HUNG}, {}, "it did not get so far"),
        ({"ready": HUNG}, {}, "it did not get so far"),
        ({"unfrozen": "no cgroup"}, {}, "its processes could not be frozen: no cgroup"),
        ({}, {"query-migrate": {"status": "failed"}}, "state: failed"),
        ({}, {"stop": QmpFailed("QEMU went away.")}, "QEMU went away"),
    ],
)
async def test_a_failure_leaves_nothing_and_is_told(world, says, answers, said):
    world.says |= says
    world.session.answers |= answers
    told = await world.fail(StartKind.READY)
    assert told.startswith("its snapshot could not be made or used (")
    assert told.endswith(f"{said})")
    assert [running.has_ended for running in world.running] == [True]
    assert (world.store.all(), world.leftovers, world.exports.users, world.made) == ([], [], set(), [])


@pytest.mark.parametrize("error", [StartFailed("QEMU ended."), ProcessFailed("qemu-img failed."), OSError(28, "full")])
async def test_a_failure_does_not_keep_others_from_being_made(world, error):
    world.spawner.make_disk.side_effect = error
    assert "could not be made" in await world.fail(StartKind.READY)
    assert (await world.have(StartKind.TEMPLATE)).kind is StartKind.TEMPLATE


async def test_a_disk_that_cannot_be_exported(world):
    world.exports.error = QmpFailed("no such disk")
    assert "no such disk" in await world.fail(StartKind.READY)
    assert (world.running, world.leftovers) == ([], [])


async def test_an_emulator_that_does_not_end_is_ended(world, monkeypatch):
    monkeypatch.setattr(StandInSession, "quit", AsyncMock())
    assert "QEMU did not end" in await world.fail(StartKind.TEMPLATE)
    assert world.running[0].has_ended


async def test_a_failure_is_remembered_for_a_while(world, monkeypatch):
    world.says["waiting"] = HUNG
    await world.fail(StartKind.TEMPLATE)
    for _ in range(3):
        world.want(StartKind.TEMPLATE)
    await asyncio.sleep(0.01)
    assert len(world.running) == 1
    world.says.clear()
    monkeypatch.setattr(maker, "_REMEMBER_SECONDS", 0)
    assert "it is being made" in world.want(StartKind.TEMPLATE)
    await until(lambda: world.made)


@pytest.mark.parametrize("kind", [StartKind.TEMPLATE, StartKind.READY])
async def test_nothing_is_made_where_that_is_turned_off(tmp_path, kind):
    world = World(tmp_path, enabled=False)
    assert world.want(kind) == "snapshots are turned off (UHM_SNAPSHOTS)"
    await asyncio.sleep(0.01)
    assert world.running == []
    await world.stop()


async def test_the_least_recently_used_makes_way(tmp_path):
    world = World(tmp_path, max_bytes=1)
    await world.have(StartKind.TEMPLATE)
    await world.have(StartKind.READY)
    assert [snapshot.kind for snapshot in world.store.all()] == [StartKind.READY]
    await world.stop()


async def test_an_image_that_was_deleted_loses_its_snapshots(world):
    await world.have(StartKind.TEMPLATE)
    await world.have(StartKind.READY)
    world.maker.forget_image("another")
    assert len(world.store.all()) == 2
    world.maker.forget_image(IMAGE.id)
    assert [snapshot.kind for snapshot in world.store.all()] == [StartKind.TEMPLATE]


async def test_an_image_that_is_deleted_meanwhile_gets_none(world):
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def expect(*names, within):
        under_way.set()
        await go_on.wait()
        return GuestEvent(1.0, names[0])

    original = world.spawner.spawn.side_effect

    async def spawn(files, **options):
        running = await original(files, **options)
        running.guest.expect = expect
        return running

    world.spawner.spawn.side_effect = spawn
    world.want(StartKind.READY)
    world.maker.want_ready(replace(SHAPE, vcpus=2), DISK, SERVICE)
    await under_way.wait()
    world.maker.forget_image(IMAGE.id)
    go_on.set()
    world.want(StartKind.TEMPLATE)
    await until(lambda: world.made)
    assert world.made == [StartKind.TEMPLATE]
    assert len(world.running) == 2  # the one with two processors was not begun
    assert [snapshot.kind for snapshot in world.store.all()] == [StartKind.TEMPLATE]
    assert world.leftovers == []


async def test_an_image_that_is_deleted_at_the_last_moment_gets_none(world, monkeypatch):
    seal = world.store.seal

    def seal_late(*args, **options):
        world.maker.forget_image(IMAGE.id)
        return seal(*args, **options)

    monkeypatch.setattr(world.store, "seal", seal_late)
    world.want(StartKind.READY)
    await until(lambda: world.running and world.running[0].has_ended and not world.leftovers)
    assert (world.store.all(), world.made, world.exports.users) == ([], [], set())


async def test_an_image_that_was_deleted_gets_no_more(world):
    world.maker.forget_image(IMAGE.id)
    assert world.want(StartKind.READY) == "the image was deleted"
    assert "it is being made" in world.want(StartKind.TEMPLATE)  # which is no image's
    await until(lambda: world.made)
    assert world.made == [StartKind.TEMPLATE]
    assert len(world.running) == 1


async def test_making_one_can_be_cancelled(world):
    under_way = asyncio.Event()

    async def hang(files, **_options):
        under_way.set()
        await asyncio.Event().wait()

    world.spawner.spawn.side_effect = hang
    world.want(StartKind.READY)
    await under_way.wait()
    await world.stop()
    assert (world.leftovers, world.exports.users, world.store.all()) == ([], set(), [])


async def test_what_a_former_run_was_making_is_ended(world):
    directory = world.store.new_directory()
    process = await DetachedProcess.spawn(directory, ["sleep", "60"])
    await world.maker.sweep()
    assert not process.alive
    assert str(await process.ended()) == "was ended by signal 9 (SIGKILL)"
    process.close()


async def test_the_record_outlives_the_service(world):
    snapshot = await world.have(StartKind.READY)
    record = json.loads((snapshot.directory / "snapshot.json").read_text())
    assert (record["kind"], record["image_id"]) == ("ready", IMAGE.id)
    assert a_store(world.store._directory).find(READY_KEY) == snapshot


async def test_what_no_machine_came_up_from_is_not_made_again(world):
    made = await world.have(StartKind.READY)
    world.maker.give_up(made.key, "the image's after-restore hook ended with 1")
    world.store.drop(made.key)
    told = world.want(StartKind.READY)
    assert told == "its snapshot could not be made or used (the image's after-restore hook ended with 1)"
