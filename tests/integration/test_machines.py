"""The machines service with real guests under TCG: as a process that is called, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
import urllib.request

import grpc
import pytest

from tests.integration.machines_stand_ins import PAGE, make_disks, running_world
from uhmalguhm.machines.v1 import machine_pb2 as pb

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FOREVER = ["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"]


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    return make_disks(tmp_path_factory.mktemp("machines") / "artifacts")


@pytest.fixture
async def world(disks, tmp_path):
    """In a directory too deep for the address of a Unix socket."""
    async with running_world(disks, tmp_path / ("deep" * 20) / "state") as running:
        yield running


async def create(client, image="busybox", **fields):
    return (await client.CreateMachine(pb.CreateMachineRequest(image=image, **fields))).machine


async def until_ended(client, machine_id):
    changes = [change.machine async for change in client.WatchMachine(pb.WatchMachineRequest(id=machine_id))]
    return changes[-1]


async def logs(client, machine_id, **fields):
    request = pb.StreamLogsRequest(id=machine_id, **fields)
    return [(entry.stream, entry.data) async for entry in client.StreamLogs(request)]


async def until_up(client, machine_id):
    """Returns once FOREVER has set its trap; without, the first process of a PID namespace ignores the signal."""
    async for entry in client.StreamLogs(pb.StreamLogsRequest(id=machine_id, follow=True)):
        if entry.data.endswith(b"up\n"):
            return


async def eventually(condition, *, within=30):
    """Waits until a condition holds; answers whether it did in time."""
    deadline = time.monotonic() + within
    while not (holds := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110 - files and processes are looked at
        await asyncio.sleep(0.05)
    return holds


async def fetch(port):
    """The page; the forwarding may take a connection before the guest does."""

    def attempt():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return answer.read()

    for _ in range(10):
        with contextlib.suppress(OSError):
            return await asyncio.to_thread(attempt)
    raise TimeoutError(port)


@contextlib.contextmanager
def refused(code, *words):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    assert raised.value.code() is code, raised.value.details()
    for word in words:
        assert word in (raised.value.details() or "")


async def test_a_command_runs_to_its_end(world):
    client = world.client()
    machine = await create(client, name="once", hostname="box")
    assert machine.name == "once"
    ended = await until_ended(client, machine.id)
    assert (ended.status, ended.exit_code, ended.reason) == ("exited", 3, "")
    assert ended.create_time.ToNanoseconds() < ended.start_time.ToNanoseconds() < ended.end_time.ToNanoseconds()
    assert not ended.pid
    assert await logs(client, "once") == [("stdout", b"hello\n"), ("stderr", b"oops\n")]
    assert await logs(client, "once", tail=1) == [("stderr", b"oops\n")]
    assert [phase.name for phase in ended.phases] == [
        "prepare",
        "spawn",
        "kernel",
        "init",
        "first_output",
        "listening",
    ][:5]
    await client.DeleteMachine(pb.DeleteMachineRequest(id=machine.id[:10]))
    assert world.machine_dirs() == []
    assert world.disks.store.lease_holders(world.disks.digest) == []
    with refused(grpc.StatusCode.NOT_FOUND):
        await client.GetMachine(pb.GetMachineRequest(id="once"))


async def test_the_workload_gets_what_was_asked_for(world):
    client = world.client()
    script = "hostname; pwd; echo $A; id -u; echo $0 $1"
    machine = await create(
        client, entrypoint=["sh", "-c"], command=[script, "zero", "one"], env=["A=b c"], working_dir="/made",
        user="65534", hostname="box",
    )  # fmt: skip
    await until_ended(client, machine.id)
    written = b"".join(data for _, data in await logs(client, machine.id))
    assert written.decode().split("\n") == ["box", "/made", "b c", "65534", "zero one", ""]


async def test_stop_then_start_keeps_the_disk(world):
    client = world.client()
    script = "cat /kept; echo again >>/kept; " + FOREVER[2]
    machine = await create(client, command=["sh", "-c", script])
    following = asyncio.create_task(logs(client, machine.id, follow=True))
    await until_up(client, machine.id)
    stopped = (await client.StopMachine(pb.StopMachineRequest(id=machine.id))).machine
    assert (stopped.status, stopped.exit_code, stopped.reason) == ("exited", 7, "Stopped.")
    assert (await following)[-1] == ("stdout", b"bye\n")
    with refused(grpc.StatusCode.NOT_FOUND):
        await client.StartMachine(pb.StartMachineRequest(id="nothing"))
    output = world.state_dir / "machines" / machine.id / "output"
    started = (await client.StartMachine(pb.StartMachineRequest(id=machine.id))).machine
    assert started.status == "running"
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "running"):
        await client.StartMachine(pb.StartMachineRequest(id=machine.id))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "running"):
        await client.DeleteMachine(pb.DeleteMachineRequest(id=machine.id))
    assert await eventually(lambda: output.read_bytes().count(b"up\n") == 2)
    await client.StopMachine(pb.StopMachineRequest(id=machine.id, grace_seconds=5))
    written = b"".join(data for stream, data in await logs(client, machine.id) if stream == "stdout")
    assert written == b"up\nbye\nagain\nup\nbye\n"


async def test_a_server_is_reached_through_its_port(world):
    client = world.client()
    machine = await create(client, "web", ports=[pb.PortMapping(guest_port=80)], wait="listening")
    assert machine.listening
    assert [phase.name for phase in machine.phases][-1] == "listening"
    port = machine.ports[0].host_port
    assert await fetch(port) == PAGE
    with refused(grpc.StatusCode.FAILED_PRECONDITION, f"127.0.0.1:{port}/tcp", machine.name):
        await create(client, "web", ports=[pb.PortMapping(guest_port=80, host_port=port)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with refused(grpc.StatusCode.FAILED_PRECONDITION, f"127.0.0.1:{number}/tcp", "another program"):
            await create(client, "web", ports=[pb.PortMapping(guest_port=80, host_port=number)])
    assert world.machine_dirs() == [machine.id]
    await client.DeleteMachine(pb.DeleteMachineRequest(id=machine.id, force=True))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


async def test_what_cannot_run_says_why(world):
    client = world.client()
    world.images.add("early", world.disks.digest, status="building")
    world.images.add("empty", world.disks.digest)
    world.images.add("gone", "sha256:" + "0" * 64, cmd=["true"])
    for image, code, word in [
        ("nowhere", grpc.StatusCode.NOT_FOUND, "nowhere"),
        ("early", grpc.StatusCode.FAILED_PRECONDITION, "being built"),
        ("empty", grpc.StatusCode.INVALID_ARGUMENT, "The image has no command"),
        ("gone", grpc.StatusCode.NOT_FOUND, "not there any more"),
    ]:
        with refused(code, word):
            await create(client, image)
    assert world.machine_dirs() == []
    machine = await create(client, command=["/no/such/program"])
    ended = await until_ended(client, machine.id)
    assert (ended.status, ended.exit_code) == ("failed", 127)
    assert "/no/such/program" in ended.reason


async def test_machines_are_their_owners(world):
    anna, ben = world.client("anna"), world.client("ben")
    machine = await create(anna, name="mine")
    for call in (
        ben.GetMachine(pb.GetMachineRequest(id=machine.id)),
        ben.StopMachine(pb.StopMachineRequest(id="mine")),
        ben.DeleteMachine(pb.DeleteMachineRequest(id=machine.id, force=True)),
    ):
        with refused(grpc.StatusCode.NOT_FOUND):
            await call
    with refused(grpc.StatusCode.ALREADY_EXISTS, "mine"):
        await create(anna, name="mine")
    assert (await create(ben, name="mine")).owner == "ben"
    listed = await anna.ListMachines(pb.ListMachinesRequest(all=True))
    assert [entry.id for entry in listed.machines] == [machine.id]


async def test_a_killed_emulator_is_reported_at_once(world):
    client = world.client()
    machine = await create(client, command=FOREVER)
    os.kill(machine.pid, signal.SIGKILL)
    ended = await asyncio.wait_for(until_ended(client, machine.id), 2)
    assert (ended.status, ended.reason) == ("failed", "QEMU was ended by signal 9 (SIGKILL).")
    assert not ended.HasField("exit_code")


async def test_a_hung_machine_can_be_stopped(world):
    client = world.client()
    machine = await create(client, command=FOREVER)
    os.kill(machine.pid, signal.SIGSTOP)
    stopped = (await client.StopMachine(pb.StopMachineRequest(id=machine.id, grace_seconds=1))).machine
    assert (stopped.status, stopped.exit_code) == ("exited", 137)
    assert "by force" in stopped.reason


async def test_a_machine_can_be_stopped_while_it_boots(world):
    client = world.client()
    machine = await create(client, command=FOREVER, wait="created")
    assert machine.status == "starting"
    stopped = (await client.StopMachine(pb.StopMachineRequest(id=machine.id))).machine
    assert (stopped.status, stopped.reason) == ("exited", "Stopped before its command was started.")


async def test_auto_remove_leaves_time_to_ask(world):
    client = world.client()
    machine = await create(client, name="brief", auto_remove=True)
    ended = await until_ended(client, machine.id)
    assert ended.exit_code == 3
    assert not (await client.ListMachines(pb.ListMachinesRequest(all=True))).machines
    assert await logs(client, machine.id) == [("stdout", b"hello\n"), ("stderr", b"oops\n")]
    again = await create(client, name="brief", auto_remove=True)
    await until_ended(client, again.id)
    assert await eventually(lambda: world.machine_dirs() == [])


async def test_machines_survive_the_service(world):
    client = world.client()
    web = await create(client, "web", ports=[pb.PortMapping(guest_port=80)], wait="listening")
    brief = await create(client, command=["sh", "-c", "sleep 2; exit 5"])
    killed, obedient = await asyncio.gather(create(client, command=FOREVER), create(client, command=FOREVER))
    await until_up(client, obedient.id)
    world.kill()
    assert await fetch(web.ports[0].host_port) == PAGE
    os.kill(killed.pid, signal.SIGKILL)
    await asyncio.sleep(3)
    await world.start()
    ended = (await client.GetMachine(pb.GetMachineRequest(id=brief.id))).machine
    assert (ended.status, ended.exit_code) == ("exited", 5)
    failed = (await client.GetMachine(pb.GetMachineRequest(id=killed.id))).machine
    assert (failed.status, failed.reason) == ("failed", "QEMU was ended by signal 9 (SIGKILL).")
    adopted = (await client.GetMachine(pb.GetMachineRequest(id=web.id))).machine
    assert (adopted.status, adopted.pid, adopted.listening) == ("running", web.pid, True)
    assert adopted.start_time == web.start_time
    with refused(grpc.StatusCode.FAILED_PRECONDITION, web.name):
        await create(client, "web", ports=web.ports)
    stopped = (await client.StopMachine(pb.StopMachineRequest(id=obedient.id))).machine
    assert (stopped.status, stopped.exit_code) == ("exited", 7)
    os.kill(web.pid, signal.SIGKILL)
    assert (await until_ended(client, web.id)).status == "failed"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.3, 1.0])
async def test_a_start_that_was_cut_leaves_a_machine_or_none(world, delay):
    client = world.client()
    request = pb.CreateMachineRequest(image="web", name="cut", ports=[pb.PortMapping(guest_port=80)], wait="listening")
    cut = asyncio.ensure_future(client.CreateMachine(request))
    directory = world.state_dir / "machines"
    assert await eventually(lambda: any(directory.glob("*/")))
    await asyncio.sleep(delay)
    world.kill()
    with contextlib.suppress(grpc.aio.AioRpcError):
        await cut
    await world.start()
    machines = (await client.ListMachines(pb.ListMachinesRequest(all=True))).machines
    assert world.machine_dirs() == [machine.id for machine in machines]
    for machine in machines:
        async for change in client.WatchMachine(pb.WatchMachineRequest(id=machine.id)):
            if change.machine.listening:
                break
        assert await fetch(machine.ports[0].host_port) == PAGE
    emulators = [line for line in world.processes() if line.startswith("qemu-system")]
    assert len(emulators) == len(machines)
    assert world.disks.store.lease_holders(world.disks.digest) == [machine.id for machine in machines]


async def test_ten_at_once(world):
    client = world.client()
    requests = [create(client, "web", ports=[pb.PortMapping(guest_port=80)], wait="listening") for _ in range(10)]
    machines = await asyncio.gather(*requests)
    assert await asyncio.gather(*(fetch(machine.ports[0].host_port) for machine in machines)) == [PAGE] * 10
    assert len({machine.ports[0].host_port for machine in machines}) == 10
    page = await client.ListMachines(pb.ListMachinesRequest(page_size=7))
    rest = await client.ListMachines(pb.ListMachinesRequest(page_size=7, page_token=page.next_page_token))
    assert {entry.id for entry in [*page.machines, *rest.machines]} == {machine.id for machine in machines}
    assert not rest.next_page_token
    await asyncio.gather(
        *(client.DeleteMachine(pb.DeleteMachineRequest(id=machine.id, force=True)) for machine in machines)
    )
    assert world.machine_dirs() == []


async def test_many_creates_with_one_key_make_one_machine(world):
    client = world.client(key="once")
    machines = await asyncio.gather(*(create(client, command=FOREVER) for _ in range(20)))
    assert {machine.id for machine in machines} == {machines[0].id}
    assert world.machine_dirs() == [machines[0].id]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "another request"):
        await create(client, command=["true"])


@pytest.mark.parametrize("delay", [0.0, 0.3])
async def test_a_create_that_is_repeated_after_a_crash_makes_no_second_machine(world, delay):
    client = world.client(key="once")
    cut = asyncio.ensure_future(create(client, command=FOREVER, wait="running"))
    directory = world.state_dir / "machines"
    assert await eventually(lambda: any(directory.glob("*/")))
    await asyncio.sleep(delay)
    world.kill()
    with contextlib.suppress(grpc.aio.AioRpcError):
        await cut
    await world.start()
    again = await create(client, command=FOREVER, wait="running")
    assert world.machine_dirs() == [again.id]
    assert await create(client, command=FOREVER, wait="running") == again


async def test_one_that_ran_and_went_before_anybody_was_told_does_not_run_again(world):
    client = world.client(key="once")
    ports = [pb.PortMapping(guest_port=80)]  # on which nobody listens, so that it is answered when it has ended
    brief = {"command": ["sleep", "5"], "ports": ports, "auto_remove": True, "wait": "listening"}
    cut = asyncio.ensure_future(create(client, **brief))
    directory = world.state_dir / "machines"
    assert await eventually(lambda: any("started" in path.read_text() for path in directory.glob("*/events")))
    world.kill()
    with contextlib.suppress(grpc.aio.AioRpcError):
        await cut
    assert await eventually(lambda: any(directory.glob("*/exit")), within=60)
    await world.start()
    for _ in range(2):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "has ended and was removed"):
            await create(client, **brief)
    assert world.machine_dirs() == []


async def test_stop_start_and_delete_at_once_are_sane(world):
    client = world.client()
    machine = await create(client, command=FOREVER)
    calls = [
        client.StopMachine(pb.StopMachineRequest(id=machine.id)),
        client.StartMachine(pb.StartMachineRequest(id=machine.id)),
        client.DeleteMachine(pb.DeleteMachineRequest(id=machine.id, force=True)),
        client.StopMachine(pb.StopMachineRequest(id=machine.id, grace_seconds=0)),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert not [outcome for outcome in outcomes if getattr(outcome, "code", lambda: None)() is grpc.StatusCode.INTERNAL]
    assert isinstance(outcomes[2], pb.DeleteMachineResponse)
    assert world.machine_dirs() == []


async def test_machines_go_on_when_the_export_dies(world):
    client = world.client()
    script = "while :; do echo 3 >/proc/sys/vm/drop_caches; md5sum /www/large; sleep 0.1; done"
    machine = await create(client, command=["sh", "-c", script])
    exports, output = world.state_dir / "exports", world.state_dir / "machines" / machine.id / "output"
    for _ in range(2):
        os.kill(int((exports / "pid").read_text()), signal.SIGKILL)
        size = output.stat().st_size
        assert await eventually(lambda size=size: output.stat().st_size > size + 200)
        written = await logs(client, machine.id)
        assert {(stream, data.split()[1]) for stream, data in written} == {("stdout", b"/www/large")}
        assert len({data.split()[0] for _, data in written}) == 1


async def test_bounds_are_kept(disks, tmp_path):
    async with running_world(disks, tmp_path, UHM_MAX_MACHINES="2", UHM_MAX_LOG_MIB="1") as world:
        client = world.client()
        noisy = await create(client, command=["sh", "-c", "seq 1 1000000; seq 1 5; while :; do sleep 1; done"])
        await create(client, command=FOREVER)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "2 machines run"):
            await create(client, command=FOREVER)
        output = world.state_dir / "machines" / noisy.id / "output"
        assert await eventually(lambda: output.read_bytes().endswith(b"\n5\n"), within=60)
        assert await eventually(lambda: output.stat().st_blocks * 512 <= 1 << 20)
        assert output.stat().st_size > 6 << 20
        whole = b"".join(data for _, data in await logs(client, noisy.id)).splitlines()
        assert whole[-6:] == [b"1000000", b"1", b"2", b"3", b"4", b"5"]
        numbers = [int(line) for line in whole[1:-5]]
        assert numbers == list(range(numbers[0], 1000001))
        assert await logs(client, noisy.id, tail=2) == [("stdout", b"4\n"), ("stdout", b"5\n")]


async def test_a_drain_ends_all_at_once(world):
    client = world.client()
    stubborn = await asyncio.gather(
        *(create(client, command=["sh", "-c", "while :; do sleep 1; done"]) for _ in range(3))
    )
    world.terminate()
    assert len([line for line in world.processes() if line.startswith("qemu-system")]) == 3
    began = time.monotonic()
    await world.drain()
    assert time.monotonic() - began < 15
    assert world.processes() == []
    await world.start()
    for machine in stubborn:
        ended = (await client.GetMachine(pb.GetMachineRequest(id=machine.id))).machine
        assert (ended.status, ended.exit_code, ended.reason) == ("exited", 137, "Stopped.")


async def test_a_drain_without_its_database_ends_machines_too(world):
    machine = await create(world.client(), command=FOREVER)
    world.terminate()
    records = world.state_dir / "machines.db"
    records.rename(world.state_dir / "elsewhere")
    records.mkdir()
    await world.drain()
    assert world.processes() == []
    records.rmdir()
    (world.state_dir / "elsewhere").rename(records)
    await world.start()
    ended = (await world.client().GetMachine(pb.GetMachineRequest(id=machine.id))).machine
    assert (ended.status, ended.exit_code) == ("exited", 137)


async def test_a_guest_that_does_not_come_up_is_given_up(disks, tmp_path):
    async with running_world(disks, tmp_path, UHM_START_SECONDS="0.2") as world:
        machine = await create(world.client(), wait="listening")
        assert machine.status == "failed"
        assert "did not come up in time" in machine.reason
        assert not [line for line in world.processes() if line.startswith("qemu-system")]


async def test_everything_is_kept_in_postgresql_too(disks, tmp_path, postgres_url):
    async with running_world(disks, tmp_path, UHM_DATABASE_URL=postgres_url) as world:
        client = world.client()
        machine = await create(client, name="here")
        assert (await until_ended(client, "here")).exit_code == 3
        with refused(grpc.StatusCode.ALREADY_EXISTS, "here"):
            await create(client, name="here")
        listed = await client.ListMachines(pb.ListMachinesRequest(all=True))
        assert [entry.id for entry in listed.machines] == [machine.id]
        assert not (tmp_path / "machines.db").exists()


async def test_a_state_directory_has_one_service(world):
    first, world.service = world.service, None
    world.spawn()
    second, world.service = world.service, first
    assert await asyncio.to_thread(second.wait, 30) == 1
    assert "Another process runs the machines" in world.log_path.read_text()
