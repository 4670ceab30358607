import asyncio
from dataclasses import replace
from unittest.mock import AsyncMock

import pytest

from tests.unit.machines.stand_ins import DIGEST, DISK, SHAPE, StandInExports, StandInRunning, a_store, committed, until
from uhm_machines.errors import GuestFailed, QmpFailed, StartFailed
from uhm_machines.machine import StartKind
from uhm_machines.starts import spares as sparing
from uhm_machines.starts.spares import SpareKind, Spares


class World:
    """Spares that are being kept, and what they are made of."""

    def __init__(self, directory, *, limit=2):
        self.machines = directory / "machines"
        self.store = a_store(directory / "snapshots")
        self.exports = StandInExports()
        self.loaded: list[StandInRunning] = []
        self.restorer = AsyncMock()
        self.restorer.load.side_effect = self._load
        self.restorer.rehearse.side_effect = self._rehearse
        self.rehearsed: list[tuple[StartKind, str]] = []
        self.users_while_rehearsing: list[set[tuple[str, str]]] = []
        self.spares = Spares(self.machines, restorer=self.restorer, exports=self.exports, store=self.store, limit=limit)
        self.keeping: asyncio.Task[None] | None = None

    async def _load(self, files, _snapshot, **_options):
        files.make()
        running = StandInRunning(files)
        self.loaded.append(running)
        self.loaded_at = asyncio.get_running_loop().time()
        return running

    async def _rehearse(self, _running, kind, disk, *, machine_id):
        self.rehearsed.append((kind, disk.digest))
        self.users_while_rehearsing.append(set(self.exports.users))
        assert (self.machines / machine_id).is_dir()

    def keep(self):
        self.keeping = asyncio.create_task(self.spares.run())

    async def stop(self):
        if self.keeping is not None:
            self.keeping.cancel()
            await asyncio.wait([self.keeping])

    def kind(self, key, kind=StartKind.TEMPLATE, disk=None):
        snapshot = committed(self.store, key, kind)
        disk = DISK if kind is StartKind.READY else disk
        return SpareKind(snapshot=snapshot, shape=SHAPE, boot=DISK.boot, disk=disk)

    async def made(self, count):
        await until(lambda: len(self.loaded) == count)
        await asyncio.sleep(0.01)  # and no more

    @property
    def directories(self):
        return {path.name for path in self.machines.glob("*/")}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(sparing, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(sparing, "_LOOK_SECONDS", 0.02)


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    made.keep()
    yield made
    await made.stop()


async def test_one_is_made_claimed_and_replaced(world):
    assert world.spares.claim("k") is None
    world.spares.want(world.kind("k"))
    await world.made(1)
    spare = world.spares.claim("k")
    assert spare.running is world.loaded[0]
    assert world.directories == {spare.machine_id} == {spare.running.files.directory.name}
    assert world.spares.claim("k") is None
    await world.made(2)
    other = world.spares.claim("k")
    assert other.machine_id != spare.machine_id
    assert not spare.running.has_ended


async def test_it_is_loaded_from_what_was_wanted(world):
    ready = world.kind("r", StartKind.READY)
    world.spares.want(ready)
    await world.made(1)
    asked = world.restorer.load.await_args
    assert asked.args[1] == ready.snapshot
    assert asked.kwargs == {"shape": SHAPE, "boot": DISK.boot, "disk": DISK}
    assert world.rehearsed == [(StartKind.READY, DIGEST)]
    assert world.exports.users == {(DIGEST, world.spares.claim("r").machine_id)}


async def test_a_template_is_loaded_without_the_disk_that_it_rehearses_with(world):
    world.spares.want(world.kind("t", disk=DISK))
    await world.made(1)
    assert world.restorer.load.await_args.kwargs["disk"] is None
    assert world.rehearsed == [(StartKind.TEMPLATE, DIGEST)]
    machine_id = world.spares.claim("t").machine_id
    assert world.users_while_rehearsing == [{(DIGEST, machine_id)}]
    assert world.exports.users == set()


async def test_a_template_without_a_disk_at_hand_waits_as_it_is(world):
    world.spares.want(world.kind("t"))
    await world.made(1)
    assert world.rehearsed == []
    assert world.spares.claim("t").kind.disk is None


async def test_it_is_made_anew_once_it_can_rehearse(world):
    kind = world.kind("t")
    world.spares.want(kind)
    await world.made(1)
    (old,) = world.directories
    world.spares.want(replace(kind, disk=DISK))
    await world.made(2)
    assert world.loaded[0].has_ended
    assert old not in world.directories
    world.spares.want(kind)  # by one who knows of no disk
    await asyncio.sleep(0.05)
    assert [running.has_ended for running in world.loaded] == [True, False]
    assert world.spares.claim("t").kind.disk == DISK


@pytest.mark.parametrize("kind", [StartKind.TEMPLATE, StartKind.READY])
@pytest.mark.parametrize(
    "error", [GuestFailed("it did not get so far"), QmpFailed("no such node"), OSError(28, "full")]
)
async def test_one_that_cannot_rehearse_is_ended(world, kind, error):
    world.restorer.rehearse.side_effect = error
    world.spares.want(world.kind("k", kind, disk=DISK))
    await world.made(1)
    await until(lambda: not world.directories and not world.exports.users)
    await asyncio.sleep(0.05)
    assert [running.has_ended for running in world.loaded] == [True]
    assert world.spares.claim("k") is None


@pytest.mark.parametrize("kind", [StartKind.TEMPLATE, StartKind.READY])
async def test_a_snapshot_that_was_just_made_gets_one(world, kind):
    world.spares.want_made(committed(world.store, "k", kind), SHAPE, DISK)
    await world.made(1)
    assert world.spares.claim("k").kind.disk == DISK


async def test_a_template_that_was_made_before_there_was_an_image_gets_one_without_a_disk(world):
    world.spares.want_made(committed(world.store, "k"), SHAPE, replace(DISK, digest="", size=0))
    await world.made(1)
    assert world.spares.claim("k").kind.disk is None


async def test_a_start_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sparing, "_SETTLE_SECONDS", 0.1)
    world = World(tmp_path)
    world.spares.want(world.kind("k"))
    world.spares.claim("k")
    began = asyncio.get_running_loop().time()
    world.keep()
    await world.made(1)
    assert world.loaded_at - began > 0.09
    await world.stop()


async def test_the_least_recently_wanted_is_given_up(world):
    kinds = [world.kind(key) for key in "abc"]
    for kind in (kinds[0], kinds[1], kinds[0], kinds[2]):
        world.spares.want(kind)
        await asyncio.sleep(0.03)
    await world.made(3)
    await until(lambda: len(world.directories) == 2)
    assert world.spares.claim("b") is None
    assert {world.spares.claim(key).kind.snapshot.key for key in "ac"} == {"a", "c"}


async def test_none_are_kept_where_none_may_be(tmp_path):
    world = World(tmp_path, limit=0)
    world.spares.want(world.kind("k"))
    world.keep()
    await asyncio.sleep(0.05)
    assert world.loaded == []
    await world.stop()


async def test_it_goes_with_its_snapshot(world):
    world.spares.want(world.kind("r", StartKind.READY))
    await world.made(1)
    world.store.drop("r")
    await until(lambda: not world.directories and not world.exports.users)
    assert world.loaded[0].has_ended
    await world.made(1)


@pytest.mark.parametrize("claimed", [False, True])
async def test_one_whose_process_has_died_is_replaced(world, claimed):
    world.spares.want(world.kind("r", StartKind.READY))
    await world.made(1)
    (dead,) = world.directories
    world.loaded[0].process.kill()
    if claimed:
        assert world.spares.claim("r") is None
    await world.made(2)
    assert dead not in world.directories
    assert world.exports.users == {(DIGEST, world.spares.claim("r").machine_id)}


async def test_one_that_is_claimed_while_another_is_discarded_is_left_alone(world, monkeypatch):
    for key in "ab":
        world.spares.want(world.kind(key))
    await world.made(2)
    discarding, go_on = asyncio.Event(), asyncio.Event()
    first, second = world.loaded

    async def end():
        discarding.set()
        await go_on.wait()

    monkeypatch.setattr(first, "end", end)
    first.process.kill()
    await discarding.wait()
    claimed = world.spares.claim("b")
    assert claimed.running is second
    second.process.kill()  # its machine ends at once
    go_on.set()
    await until(lambda: len(world.loaded) == 4)
    assert claimed.machine_id in world.directories


@pytest.mark.parametrize("error", [StartFailed("QEMU ended."), FileNotFoundError("state")])
async def test_one_that_cannot_be_made_is_not_tried_again_unless_wanted(world, error):
    async def fail(files, *_args, **_options):
        files.make()
        world.loaded.append(StandInRunning(files))
        raise error

    world.restorer.load.side_effect = fail
    kind = world.kind("r", StartKind.READY)
    world.spares.want(kind)
    await world.made(1)
    await until(lambda: not world.directories and not world.exports.users)
    await asyncio.sleep(0.05)
    assert len(world.loaded) == 1
    assert world.spares.claim("r") is None
    world.spares.want(kind)
    await world.made(2)


async def test_a_disk_that_cannot_be_exported(world):
    world.exports.error = StartFailed("qemu-storage-daemon did not come up")
    world.spares.want(world.kind("r", StartKind.READY))
    world.spares.want(world.kind("t"))
    await world.made(1)
    assert world.spares.claim("r") is None
    assert world.directories == {world.loaded[0].files.directory.name}
    assert world.spares.claim("t") is not None


async def test_discarding_leaves_nothing(world):
    world.spares.want(world.kind("r", StartKind.READY))
    await world.made(1)
    spare = world.spares.claim("r")
    await world.stop()
    await world.spares.discard(spare)
    assert spare.running.has_ended
    assert (world.directories, world.exports.users) == (set(), set())


async def test_all_end_with_the_service(world):
    world.spares.want(world.kind("t"))
    world.spares.want(world.kind("r", StartKind.READY))
    await world.made(2)
    await world.stop()
    await world.spares.close()
    assert all(running.has_ended for running in world.loaded)
    assert (world.directories, world.exports.users, world.spares.claim("t")) == (set(), set(), None)


async def test_a_disk_to_rehearse_with_is_not_forgotten(world):
    snapshot = committed(world.store, "k", StartKind.TEMPLATE)
    world.spares.want_made(snapshot, SHAPE, DISK)
    world.spares.want_made(snapshot, SHAPE, replace(DISK, digest=""))
    await world.made(1)
    assert world.spares.claim("k").kind.disk == DISK
