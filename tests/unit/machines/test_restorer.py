import asyncio
import os
import socket
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest

from tests.unit.machines.stand_ins import BOOT, DISK, HUNG, SHAPE, StandInGuest, StandInRunning, a_store, committed
from tests.unit.machines.test_store import a_machine
from uhm_machines.errors import GuestFailed, PortInUse, QmpFailed
from uhm_machines.files import MachineFiles
from uhm_machines.machine import PortMapping, StartKind
from uhm_machines.starts import restorer as restorers
from uhm_machines.starts.restorer import Restorer

PORTS = (PortMapping(host_address="127.0.0.1", host_port=8080, guest_port=80),)
MACHINE = a_machine("a" * 32, ports=PORTS)
NODES = [{"node-name": "image"}, {"node-name": "overlay"}]


class World:
    def __init__(self, directory):
        self.store = a_store(directory / "snapshots")
        self.files = MachineFiles(directory / "machine")
        self.running = StandInRunning(self.files)
        self.spawner = Mock(
            spawn=AsyncMock(return_value=self.running),
            make_disk=Mock(side_effect=lambda files, _disk: files.disk.touch()),
            disk_nodes=Mock(return_value=NODES),
        )
        self.restorer = Restorer(self.spawner)

    async def load(self, kind):
        self.snapshot = committed(self.store, "k", kind)
        disk = DISK if kind is StartKind.READY else None
        return await self.restorer.load(self.files, self.snapshot, shape=SHAPE, boot=BOOT, disk=disk)

    async def hand_over(self, kind):
        self.files.make()
        await self.restorer.hand_over(self.running, MACHINE, kind=kind, disk=DISK)

    async def rehearse(self, kind):
        self.files.make()
        await self.restorer.rehearse(self.running, kind, DISK, machine_id="a" * 32)

    @property
    def commands(self):
        return self.running.session.commands


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize("kind", [StartKind.TEMPLATE, StartKind.READY])
async def test_a_snapshot_is_loaded_and_runs_not(world, kind):
    assert await world.load(kind) is world.running
    asked = world.spawner.spawn.await_args.kwargs
    assert (asked["boot"], asked["hardware"], asked["incoming"]) == (BOOT, SHAPE.hardware, True)
    assert (asked["memory"].path, asked["memory"].shared) == (world.snapshot.memory, False)
    assert "migrate-incoming" in world.commands
    assert "cont" not in world.commands
    assert not world.running.has_ended


async def test_a_template_has_an_empty_disk(world):
    await world.load(StartKind.TEMPLATE)
    blank, _ = world.spawner.spawn.await_args.kwargs["blocks"]
    assert blank["size"] == SHAPE.disk_size
    assert not world.files.below.exists()
    world.spawner.make_disk.assert_not_called()


async def test_a_clone_keeps_what_its_service_had_written(world):
    await world.load(StartKind.READY)
    assert world.spawner.spawn.await_args.kwargs["blocks"] == NODES
    assert world.files.below.samefile(world.snapshot.disk)
    world.store.drop("k")
    assert world.files.below.read_bytes() == b"written by the service"
    assert world.files.disk.exists()


async def test_it_is_copied_to_another_file_system(world, monkeypatch):
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError(18, "Invalid cross-device link")))
    world.files.make()
    world.files.below.write_bytes(b"of a start that failed")
    await world.load(StartKind.READY)
    assert world.files.below.read_bytes() == b"written by the service"


async def test_a_state_that_does_not_load_leaves_nothing_running(world):
    world.running.session.answers["query-migrate"] = {"status": "failed"}
    with pytest.raises(QmpFailed):
        await world.load(StartKind.TEMPLATE)
    assert world.running.has_ended


async def test_a_template_gets_its_disk_before_it_runs(world):
    await world.hand_over(StartKind.TEMPLATE)
    assert world.commands == ["blockdev-add", "blockdev-add", "blockdev-reopen", "cont", "human-monitor-command"]
    assert world.running.guest.told == ["run", "mounted"]
    ((_, payload),) = world.running.guest.heard
    assert b"entropy\0" in payload
    assert b"machine-id\0" + MACHINE.id.encode() in payload
    assert world.files.disk.exists()


async def test_a_clone_becomes_a_machine_of_its_own(world):
    await world.hand_over(StartKind.READY)
    assert world.commands == ["cont", "human-monitor-command"]
    assert world.running.guest.told == ["restore", "restored"]
    ((_, payload),) = world.running.guest.heard
    for pair in (b"hostname\0h\0", b"machine-id\0" + MACHINE.id.encode(), b"entropy\0", b"time\0"):
        assert pair in payload


@pytest.mark.parametrize(
    ("kind", "says", "said"),
    [
        (StartKind.TEMPLATE, {"mounted": HUNG}, "so far"),
        (StartKind.READY, {"restored": HUNG}, "so far"),
        (StartKind.READY, {"restored": "3"}, "after-restore hook ended with 3"),
    ],
)
async def test_no_port_leads_to_a_guest_that_is_not_itself(world, kind, says, said):
    world.running.guest = StandInGuest(**says)
    with pytest.raises(GuestFailed, match=said):
        await world.hand_over(kind)
    assert "human-monitor-command" not in world.commands


@pytest.mark.parametrize("kind", [StartKind.TEMPLATE, StartKind.READY])
async def test_a_port_that_is_taken(world, kind):
    world.running.session.answers["human-monitor-command"] = "could not set up host forwarding rule"
    with pytest.raises(PortInUse, match="8080"):
        await world.hand_over(kind)


@pytest.fixture
async def page(monkeypatch):
    """The port of a server that plays QEMU and the guest behind it, and the requests that it got."""
    asked: list[bytes] = []

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(restorers, "free_port", lambda: nullcontext(port))
        yield SimpleNamespace(port=port, asked=asked)


async def test_a_service_rehearses_with_a_request_and_ends_paused(world, page):
    guest = world.running.guest = StandInGuest(rehearsing="4711")
    await world.rehearse(StartKind.READY)
    assert guest.told == ["rehearse", "rehearsing", "rehearsed"]
    assert b"hostname\0aaaaaaaaaaaa\0machine-id\0" + b"a" * 32 in guest.heard[0][1]
    lines = [arguments["command-line"] for command, arguments in world.running.session.asked if arguments]
    assert lines == [
        f"hostfwd_add net tcp:127.0.0.1:{page.port}-:4711", f"hostfwd_remove net tcp:127.0.0.1:{page.port}",
    ]  # fmt: skip
    assert (world.commands[0], world.commands[-1]) == ("cont", "stop")
    assert [request.split()[0] for request in page.asked] == [b"GET"]
    world.spawner.make_disk.assert_not_called()


async def test_a_template_rehearses_over_a_disk_that_it_loses_again(world):
    guest = world.running.guest
    await world.rehearse(StartKind.TEMPLATE)
    world.spawner.make_disk.assert_called_once_with(world.files, DISK)
    put_in, take_out = ["blockdev-add"] * 2 + ["blockdev-reopen"], ["blockdev-reopen"] + ["blockdev-del"] * 2
    assert world.commands == [*put_in, "cont", "stop", *take_out]
    assert guest.told == ["rehearse", "rehearsed"]
    assert not world.files.disk.exists()


async def test_a_template_rehearses_all_that_a_run_does_but_with_a_command_of_init(world):
    await world.rehearse(StartKind.TEMPLATE)
    ((_, payload),) = world.running.guest.heard
    assert payload.startswith(b"arg\0/proc/self/exe\0arg\0rehearsal\0port\x001\0")
    for pair in (b"machine-id\0" + b"a" * 32, b"entropy\0", b"time\0"):
        assert pair in payload


async def test_what_has_rehearsed_is_handed_over_as_any_other(world):
    await world.rehearse(StartKind.TEMPLATE)
    await world.hand_over(StartKind.TEMPLATE)
    assert world.running.guest.told == ["rehearse", "rehearsed", "run", "mounted"]
    assert world.commands[-5:] == ["blockdev-add"] * 2 + ["blockdev-reopen", "cont", "human-monitor-command"]
    assert world.files.disk.exists()


@pytest.mark.parametrize("kind", [StartKind.TEMPLATE, StartKind.READY])
async def test_a_rehearsal_that_fails(world, page, kind):
    world.running.guest = StandInGuest(rehearsing="4711", rehearsed=HUNG)
    with pytest.raises(GuestFailed):
        await world.rehearse(kind)


async def test_a_request_is_given_up(world, monkeypatch):
    monkeypatch.setattr(restorers, "_REQUEST_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(restorers, "free_port", lambda: nullcontext(silent.getsockname()[1]))
        world.running.guest = StandInGuest(rehearsing="4711")
        with pytest.raises(GuestFailed, match="did not answer a request"):
            await world.rehearse(StartKind.READY)
