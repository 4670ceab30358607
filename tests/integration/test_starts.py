"""The three kinds of start, with real guests under TCG: which is taken when, clones that differ, what crashes leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.integration.machines_stand_ins import PAGE, make_disks, running_world, with_file
from uhmalguhm.builder.v1 import image_pb2
from uhmalguhm.machines.v1 import machine_pb2 as pb

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MADE_SECONDS = 90
CLOCK_NS = 100_000_000


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    return make_disks(tmp_path_factory.mktemp("starts") / "artifacts")


@contextlib.asynccontextmanager
async def world_of(disks, state_dir, **env):
    """With snapshots. What still runs at the end is ended by force, which need not be waited for."""
    async with running_world(disks, state_dir, UHM_SNAPSHOTS="auto", **env) as running:
        yield running
        client = running.client()
        machines = (await client.ListMachines(pb.ListMachinesRequest())).machines
        await asyncio.gather(*(delete(client, machine) for machine in machines))


@pytest.fixture
async def world(disks, tmp_path):
    async with world_of(disks, tmp_path / "state", UHM_SPARE_MACHINES="0") as running:
        yield running


@pytest.fixture
async def world_with_spares(disks, tmp_path):
    async with world_of(disks, tmp_path / "state", UHM_SPARE_MACHINES="2") as running:
        yield running


async def create(client, image="web", *, wait="listening", **fields):
    ports = fields.pop("ports", [pb.PortMapping(guest_port=80)] if image == "web" else [])
    request = pb.CreateMachineRequest(image=image, wait=wait, ports=ports, **fields)
    return (await client.CreateMachine(request)).machine


async def delete(client, machine):
    await client.DeleteMachine(pb.DeleteMachineRequest(id=machine.id, force=True))


async def started(client, kind, image="web", **fields):
    """A machine that was started so: tried until its snapshot is there."""
    deadline = time.monotonic() + MADE_SECONDS
    while True:
        machine = await create(client, image, **fields)
        if machine.start_kind == kind:
            return machine
        assert time.monotonic() < deadline, machine.start_reason
        await delete(client, machine)
        await asyncio.sleep(0.5)


def snapshots(world, kind):
    """Directories of the complete snapshots of a kind."""
    found = (world.state_dir / "snapshots").glob("*/snapshot.json")
    return [path.parent for path in found if f'"kind": "{kind}"' in path.read_text()]


@dataclass(frozen=True)
class Answer:
    random: str
    hostname: str
    hostname_file: str
    machine_id: str
    written: list[str]


async def ask(machine, query=""):
    """What the service in a machine says of itself; it writes down what it was asked."""

    def attempt():
        url = f"http://127.0.0.1:{machine.ports[0].host_port}/cgi-bin/me?{query}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode().splitlines()

    random, hostname, hostname_file, machine_id, *written = await asyncio.to_thread(attempt)
    return Answer(random, hostname, hostname_file, machine_id, written)


async def fetch(machine):
    def attempt():
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.ports[0].host_port}/", timeout=5) as answer:
            return answer.read()

    return await asyncio.to_thread(attempt)


async def test_clones_of_a_service_are_machines_of_their_own(world):
    client = world.client()
    first = await create(client)
    assert first.start_kind in {"cold", "template"}
    assert "Ready: there is none of this image with 256 MiB and 1 processor yet" in first.start_reason
    await delete(client, first)
    await delete(client, await started(client, "ready"))

    clones = await asyncio.gather(create(client), create(client))
    for clone in clones:
        assert (clone.start_kind, clone.start_reason, clone.status, clone.listening) == ("ready", "", "running", True)
        assert {"prepare", "spawn", "restore"} == {phase.name for phase in clone.phases}
    answers = [await ask(clone, clone.name) for clone in clones]
    assert answers[0].random != answers[1].random
    for clone, answer in zip(clones, answers, strict=True):
        assert answer.hostname == answer.hostname_file == clone.hostname == clone.id[:12]
        assert answer.machine_id == clone.id
        assert answer.written == [clone.name], "a clone sees only its own writes"

    restarted = (await client.StopMachine(pb.StopMachineRequest(id=clones[0].id))).machine
    assert restarted.status == "exited"
    again = (await client.StartMachine(pb.StartMachineRequest(id=clones[0].id, wait="listening"))).machine
    assert again.start_kind == "template"
    assert again.start_reason == "Ready: the machine has a disk of its own."
    assert (await ask(again, "again")).written == [clones[0].name, "again"]
    assert (await ask(clones[1])).written == [clones[1].name]


async def test_the_clock_of_a_clone_is_right(world):
    client = world.client()
    await delete(client, await started(client, "ready"))
    await asyncio.sleep(3)  # the snapshot grows old
    for _ in range(3):
        clone = await create(client)
        assert clone.start_kind == "ready"
        await fetch(clone)  # busybox's httpd logs each request, and the guest says when
        before = time.time_ns()
        await fetch(clone)
        after = time.time_ns()
        entries = [entry async for entry in client.StreamLogs(pb.StreamLogsRequest(id=clone.id, tail=1))]
        said = entries[-1].time.ToNanoseconds()
        assert before - CLOCK_NS < said < after + CLOCK_NS
        await delete(client, clone)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": ["httpd", "-f", "-h", "/www"]}, "Ready: the command was asked for."),
        ({"env": ["A=1"]}, "Ready: the environment was asked for."),
        ({"user": "0:0", "working_dir": "/www"}, "Ready: the working directory and the user were asked for."),
        ({"hostname": "box"}, "Ready: the host name was asked for."),
        ({"start": "template"}, "Ready: a slower kind was asked for."),
    ],
)
async def test_a_template_serves_what_a_running_service_cannot(world, changes, reason):
    client = world.client()
    machine = await started(client, "template", **changes)
    assert machine.start_reason == reason
    assert await fetch(machine) == PAGE


async def test_a_template_runs_any_image_to_its_end(world):
    client = world.client()
    machine = await started(client, "template", "busybox", wait="running")
    assert "exposes no TCP port and has no health check" in machine.start_reason
    changes = [change.machine async for change in client.WatchMachine(pb.WatchMachineRequest(id=machine.id))]
    assert (changes[-1].status, changes[-1].exit_code) == ("exited", 3)
    written = [entry.data async for entry in client.StreamLogs(pb.StreamLogsRequest(id=machine.id))]
    assert written == [b"hello\n", b"oops\n"]


async def test_a_cold_start_can_be_asked_for(world):
    client = world.client()
    await delete(client, await started(client, "template", start="template"))
    machine = await create(client, start="cold")
    assert (machine.start_kind, machine.start_reason) == (
        "cold",
        "Ready: a slower kind was asked for. Template: a slower kind was asked for.",
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(client, start="lukewarm")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_snapshots_that_are_broken_make_a_start_slower_and_nothing_else(world):
    client = world.client()
    for kind in ("template", "ready"):
        await delete(client, await started(client, kind, start=kind))
    for kind in ("ready", "template"):
        for directory in snapshots(world, kind):
            (directory / "state").write_bytes(b"not a state")
    machine = await create(client)
    assert machine.start_kind == "cold"
    assert "Ready: the snapshot could not be used" in machine.start_reason
    assert "Template: the snapshot could not be used" in machine.start_reason
    assert (await ask(machine, "x")).written == ["x"]
    assert len([line for line in world.processes() if line.startswith("qemu-system")]) <= 2, "one may be made anew"
    await delete(client, machine)
    assert await fetch(await started(client, "ready")) == PAGE


async def test_an_image_can_have_a_say_in_what_becomes_of_its_clones(world):
    client = world.client()
    service = {"cmd": ["httpd", "-f", "-h", "/www"], "exposed_ports": ["80/tcp"]}
    hook = "etc/uhmalguhm/after-restore"
    agrees = with_file(world.disks, hook, b"#!/bin/sh\nkill -0 1 && hostname >> /written\n")
    world.images.add("agrees", agrees, **service)
    clone = await started(client, "ready", "agrees", ports=[pb.PortMapping(guest_port=80)])
    assert (await ask(clone)).written == [clone.hostname]
    await delete(client, clone)

    world.images.add("refuses", with_file(world.disks, hook, b"#!/bin/sh\nexit 3\n"), **service)
    deadline = time.monotonic() + MADE_SECONDS
    reason = ""
    while "the image's after-restore hook ended with 3" not in reason:
        assert time.monotonic() < deadline, reason
        machine = await create(client, "refuses", ports=[pb.PortMapping(guest_port=80)])
        reason = machine.start_reason
        assert machine.start_kind in {"cold", "template"}
        assert await fetch(machine) == PAGE
        await delete(client, machine)
        await asyncio.sleep(0.5)
    machine = await create(client, "refuses", start="ready")
    assert (
        "its snapshot could not be made or used (the image's after-restore hook ended with 3)" in machine.start_reason
    )


async def test_a_health_check_decides_when_a_service_is_ready(world):
    client = world.client()
    check = image_pb2.Healthcheck(
        command=["test", "-e", "/healthy"],
        interval=Duration(seconds=1),
        timeout=Duration(seconds=5),
        retries=3,
    )
    script = "sleep 2; echo up; touch /healthy; while :; do sleep 0.2; done"
    world.images.add("slow", world.disks.digest, cmd=["sh", "-c", script], healthcheck=check)
    clone = await started(client, "ready", "slow")
    assert clone.listening
    entries = [entry async for entry in client.StreamLogs(pb.StreamLogsRequest(id=clone.id))]
    assert entries == [], "it is past its beginning"

    world.images.add("brief", world.disks.digest, cmd=["sh", "-c", "exit 4"], healthcheck=check)
    deadline = time.monotonic() + MADE_SECONDS
    reason = ""
    while "could not be made or used" not in reason:
        assert time.monotonic() < deadline, reason
        reason = (await create(client, "brief", wait="created")).start_reason
        await asyncio.sleep(0.5)
    assert "its command has ended" in reason


async def test_spares_are_used_and_replaced_and_end_with_the_service(world_with_spares):
    world = world_with_spares
    client = world.client()
    await delete(client, await started(client, "ready"))

    def spare_ids():
        return set(world.machine_dirs()) - recorded

    recorded: set[str] = set()
    for _ in range(3):
        deadline = time.monotonic() + MADE_SECONDS
        while len(spares := spare_ids()) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        clone = await create(client)
        recorded.add(clone.id)
        assert clone.id in spares
        assert await fetch(clone) == PAGE
    world.terminate()
    assert set(world.machine_dirs()) == recorded
    await world.start()
    assert {machine.id for machine in (await client.ListMachines(pb.ListMachinesRequest())).machines} == recorded


@pytest.mark.parametrize("kind", ["template", "ready"])
async def test_a_restore_that_was_cut_leaves_a_machine_or_none(world_with_spares, kind):
    world = world_with_spares
    client = world.client()
    await delete(client, await started(client, kind, start=kind))
    for number in range(6):
        name = f"cut{number}"
        cut = asyncio.ensure_future(create(client, start=kind, name=name))
        await asyncio.sleep(0.03 * number)
        world.kill()
        cut.cancel()
        await world.start()
        machines = (await client.ListMachines(pb.ListMachinesRequest(all=True))).machines
        for machine in machines:
            async for change in client.WatchMachine(pb.WatchMachineRequest(id=machine.id)):
                if change.machine.listening:
                    break
            assert await fetch(machine) == PAGE
            await delete(client, machine)


@pytest.mark.parametrize("delay", [0.0, 0.7, 2.0, 4.0])
async def test_a_snapshot_that_was_cut_is_made_anew(world, delay):
    client = world.client()
    making = world.state_dir / "snapshots"
    deadline = time.monotonic() + MADE_SECONDS
    await delete(client, await create(client))
    while not any(making.glob("making-*")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await asyncio.sleep(delay)
    world.kill()
    await world.start()
    known = {"memory", "state", "disk.qcow2", "snapshot.json"}
    for directory in making.glob("[!m]*/"):
        assert {path.name for path in directory.iterdir()} <= known
    assert len(list(making.glob("making-*"))) <= 1, "at most the one that is being made now"
    assert await fetch(await started(client, "ready")) == PAGE
