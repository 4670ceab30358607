import pytest

from tests.unit.machines.stand_ins import StandInSession
from uhm_machines.errors import InvalidRequest, PortInUse, QmpFailed
from uhm_machines.machine import PortMapping, Transport
from uhm_machines.qemu.blocks import disk_over, image, swap_in
from uhm_machines.qemu.monitor import (
    close_port,
    load_state,
    open_port,
    open_ports,
    open_ports_again,
    pause_guest,
    put_disk_in,
    run_guest,
    save_state,
    take_disk_out,
)

PORTS = (
    PortMapping(host_address="127.0.0.1", host_port=8080, guest_port=80),
    PortMapping(host_address="0.0.0.0", host_port=53, guest_port=53, transport=Transport.UDP),
)
REFUSED = "could not set up host forwarding rule 'tcp:127.0.0.1:8080-:80'\r\n"
WITHOUT_MEMORY = ("migrate-set-capabilities", {"capabilities": [{"capability": "x-ignore-shared", "state": True}]})


async def test_ports_are_opened_on_the_running_machine():
    session = StandInSession()
    await open_ports(session, PORTS)
    await close_port(session, "udp:0.0.0.0:53")
    assert [arguments["command-line"] for _, arguments in session.asked] == [
        "hostfwd_add net tcp:127.0.0.1:8080-:80",
        "hostfwd_add net udp:0.0.0.0:53-:53",
        "hostfwd_remove net udp:0.0.0.0:53",
    ]


async def test_ports_that_may_be_open_are_closed_first():
    session = StandInSession(human_monitor_command=["host forwarding rule for tcp:127.0.0.1:8080 not found\r\n", ""])
    await open_ports_again(session, PORTS[:1])
    assert [arguments["command-line"] for _, arguments in session.asked] == [
        "hostfwd_remove net tcp:127.0.0.1:8080", "hostfwd_add net tcp:127.0.0.1:8080-:80",
    ]  # fmt: skip


async def test_the_guest_is_let_run_and_paused():
    session = StandInSession()
    await run_guest(session)
    await pause_guest(session)
    assert session.commands == ["cont", "stop"]


async def test_a_port_that_is_taken():
    with pytest.raises(PortInUse, match=r"127\.0\.0\.1:8080/tcp is in use"):
        await open_ports(StandInSession(human_monitor_command=REFUSED), PORTS)
    with pytest.raises(InvalidRequest, match="cannot forward tcp::1-:2: could not set up"):
        await open_port(StandInSession(human_monitor_command=REFUSED), "tcp::1-:2")


async def test_what_the_emulator_says_of_a_port_that_it_closed_is_no_complaint():
    await close_port(StandInSession(human_monitor_command="host forwarding rule for tcp::1 removed\r\n"), "tcp::1")


async def test_a_disk_is_built_from_below_and_put_in_place_last():
    nodes = disk_over(image("nbd.sock", "abc"), overlay="disk.qcow2", below="below.qcow2", name="overlay")
    session = StandInSession()
    await put_disk_in(session, nodes)
    assert session.commands == ["blockdev-add"] * 3 + ["blockdev-reopen"]
    assert [arguments for _, arguments in session.asked[:3]] == nodes
    (options,) = session.asked[3][1]["options"]
    assert (options["node-name"], options["file"]) == ("disk", "overlay")


async def test_a_disk_is_taken_out_from_above():
    nodes = disk_over(image("nbd.sock", "abc"), overlay="disk.qcow2", name="overlay")
    session = StandInSession()
    await take_disk_out(session, nodes)
    assert session.asked == [
        ("blockdev-reopen", {"options": swap_in("blank")}),
        ("blockdev-del", {"node-name": "overlay"}),
        ("blockdev-del", {"node-name": "image"}),
    ]


async def test_a_state_is_saved_without_memory(tmp_path):
    path = tmp_path / "state"
    session = StandInSession(query_migrate=[{}, {"status": "active"}, {"status": "completed"}])
    await save_state(session, path)
    assert session.asked[:4] == [
        ("stop", None), WITHOUT_MEMORY, ("lend", ("state", path)), ("migrate", {"uri": "fd:state"}),
    ]  # fmt: skip
    assert session.commands[4:] == ["query-migrate"] * 3
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(FileExistsError):
        await save_state(StandInSession(), path)


async def test_a_state_is_loaded_and_nothing_runs_yet(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(FileNotFoundError):
        await load_state(StandInSession(), path)
    path.touch()
    session = StandInSession()
    await load_state(session, path)
    assert session.asked[:3] == [
        WITHOUT_MEMORY, ("lend", ("state", path)), ("migrate-incoming", {"uri": "fd:state"}),
    ]  # fmt: skip
    assert "cont" not in session.commands


@pytest.mark.parametrize("status", ["failed", "cancelled"])
@pytest.mark.parametrize("move", [save_state, load_state])
async def test_a_state_that_cannot_be_moved(tmp_path, move, status):
    path = tmp_path / "state"
    if move is load_state:
        path.touch()
    with pytest.raises(QmpFailed, match=status):
        await move(StandInSession(query_migrate={"status": status}), path)
