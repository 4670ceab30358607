import asyncio

import pytest

from tests.unit.machines.stand_ins import StandInProcess
from uhm_machines import guest as guests
from uhm_machines.channel import GuestEvent, Verb
from uhm_machines.errors import GuestFailed
from uhm_machines.files import MachineFiles, listen_unix
from uhm_machines.guest import StartingGuest


@pytest.fixture
def files(tmp_path):
    return MachineFiles(tmp_path)


@pytest.fixture
def process():
    return StandInProcess()


@pytest.fixture
async def guest(files, process):
    made = StartingGuest(files, process)
    yield made
    made.channel.close()
    await asyncio.sleep(0)  # the loop closes the socket


def say(files, *lines):
    with files.events.open("a") as events:
        events.writelines(f"{line}\n" for line in lines)


async def test_what_was_said_before_counts_and_what_came_before_that_is_forgotten(files, guest):
    say(files, "1.0 init", "2.0 waiting", "3.0 mounted", "4.0 started 80")
    assert await guest.expect("waiting", within=1) == GuestEvent(2.0, "waiting")
    assert await guest.expect("started", "exit", within=1) == GuestEvent(4.0, "started", "80")
    with pytest.raises(GuestFailed, match="did not get so far"):
        await guest.expect("mounted", within=0.01)


async def test_what_is_said_later_is_waited_for(files, guest):
    expected = asyncio.create_task(guest.expect("frozen", "unfrozen", within=5))
    await asyncio.sleep(0.02)
    say(files, "1.0 first_output", "2.0 unfrozen a task resists")
    assert await expected == GuestEvent(2.0, "unfrozen", "a task resists")


@pytest.mark.parametrize(
    ("last", "said"),
    [("1.0 error no such file", "^no such file$"), ("1.0 exit 0", "^its command has ended$")],
)
async def test_a_guest_that_ends_is_not_waited_for(files, guest, last, said):
    say(files, last)
    with pytest.raises(GuestFailed, match=said):
        await guest.expect("ready", within=5)


async def test_an_end_may_be_what_is_expected(files, guest):
    say(files, "1.0 exit 3")
    assert (await guest.expect("exit", within=1)).argument == "3"


async def test_time_runs_out(guest):
    with pytest.raises(GuestFailed, match=r"it did not get so far in 0\.03 s \(frozen or unfrozen\)"):
        await guest.expect("frozen", "unfrozen", within=0.03)


async def test_the_end_of_the_emulator_is_noticed_at_once(files, guest, process, monkeypatch):
    monkeypatch.setattr(guests, "_LOOK_SECONDS", 60)
    with listen_unix(files.control_socket):
        expected = asyncio.create_task(guest.expect("waiting", within=60))
        await asyncio.sleep(0.01)
        process.kill()
        with pytest.raises(GuestFailed, match="QEMU has ended"):
            await asyncio.wait_for(expected, 5)


async def test_the_last_words_count_for_more_than_the_end(files, guest, process):
    say(files, "1.0 error no base partition")
    process.kill()
    with pytest.raises(GuestFailed, match="no base partition"):
        await guest.expect("mounted", within=5)


async def test_a_bell_has_the_events_looked_at_at_once(files, guest, monkeypatch):
    monkeypatch.setattr(guests, "_LOOK_SECONDS", 60)
    loop = asyncio.get_running_loop()
    with listen_unix(files.control_socket) as server:
        expected = asyncio.create_task(guest.expect("waiting", within=60))
        qemu, _ = await loop.sock_accept(server)
        with qemu:
            say(files, "1.0 waiting")
            await loop.sock_sendall(qemu, b"x")
            assert (await asyncio.wait_for(expected, 5)).name == "waiting"


async def test_a_bell_that_was_not_rung_is_not_needed(files, guest, monkeypatch):
    monkeypatch.setattr(guests, "_LOOK_SECONDS", 0.02)
    with listen_unix(files.control_socket):
        expected = asyncio.create_task(guest.expect("waiting", within=60))
        await asyncio.sleep(0.01)
        say(files, "1.0 waiting")
        assert (await asyncio.wait_for(expected, 5)).name == "waiting"


async def test_telling_it_something(files, guest):
    with pytest.raises(GuestFailed, match="QEMU is gone"):
        await guest.send(Verb.FREEZE)
    with listen_unix(files.control_socket) as server:
        await guest.send(Verb.CHECK, b"arg\0true\0")
        qemu, _ = await asyncio.get_running_loop().sock_accept(server)
        with qemu:
            assert await asyncio.get_running_loop().sock_recv(qemu, 100) == b"check 9\narg\0true\0"
