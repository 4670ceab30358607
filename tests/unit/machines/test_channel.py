import asyncio
import socket

import pytest

from uhm_machines.channel import EventLog, GuestChannel, GuestEvent, Verb, encode_run, parse_event
from uhm_machines.files import connect_unix, listen_unix
from uhm_machines.machine import Workload

WORKLOAD = Workload(
    argv=("sh", "", "-c"), env=("A=1", "B="), working_dir="", user="app", hostname="box", stop_signal=15,
    watched_ports=(80, 443),
)  # fmt: skip


def test_run_holds_pairs_in_order():
    words = encode_run(WORKLOAD).decode().split("\0")
    pairs = list(zip(words[::2], words[1::2], strict=False))
    assert pairs[:9] == [
        ("arg", "sh"), ("arg", ""), ("arg", "-c"), ("env", "A=1"), ("env", "B="), ("port", "80"), ("port", "443"),
        ("user", "app"), ("hostname", "box"),
    ]  # fmt: skip
    assert pairs[9][0] == "time"
    assert words[-1] == ""


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"1.250000 init", GuestEvent(1.25, "init")),
        (b"2.5 error no such file", GuestEvent(2.5, "error", "no such file")),
        (b"", None),
        (b"init", None),
        (b"x init", None),
        (b"1.0", None),
        (b"1.0 error \xff", GuestEvent(1.0, "error", "\ufffd")),
        (b"1.0 error a\0b\x1b[2J", GuestEvent(1.0, "error", "a b [2J")),
        (b"1.0 error " + b"x" * 5000, GuestEvent(1.0, "error", "x" * 1000)),
        (b"nan init", None),
        (b"1e9 init", None),
        (b"-1 init", None),
        (b"999999999 init", None),
        (b"\0\0\0001.0 init", None),
    ],
)
def test_event_lines(line, event):
    assert parse_event(line) == event


def test_events_are_read_once_and_whole(tmp_path):
    path = tmp_path / "events"
    events = EventLog(path)
    assert events.read_new() == []
    path.write_bytes(b"1.0 init\n2.0 wai")
    assert events.read_new() == [GuestEvent(1.0, "init")]
    with path.open("ab") as file:
        file.write(b"ting\njunk\n")
    assert events.read_new() == [GuestEvent(2.0, "waiting")]
    assert events.read_new() == []
    written_ns = path.stat().st_mtime_ns
    assert events.wall_clock_ns(GuestEvent(1.5, "x")) == written_ns - 500_000_000


def test_a_line_without_end_does_not_stop_the_rest(tmp_path):
    path = tmp_path / "events"
    path.write_bytes(b"x" * 1_000_000 + b"\n1.0 init\n" + b"2.0 ready\n" * 20_000)
    seen = EventLog(path).read_rest()
    assert seen[0] == GuestEvent(1.0, "init")
    assert len(seen) == 20_001


async def test_messages_and_bells_go_through_a_socket_of_any_depth(tmp_path):
    directory = tmp_path / ("deep" * 30)
    directory.mkdir()
    path = directory / "control.sock"
    loop = asyncio.get_running_loop()
    with listen_unix(path) as server:
        channel = GuestChannel(path)
        await channel.send(Verb.SIGNAL, b"15")
        guest, _ = await loop.sock_accept(server)
        with guest:
            assert await loop.sock_recv(guest, 100) == b"signal 2\n15"
            await loop.sock_sendall(guest, b"1.0 init\n")
            await asyncio.wait_for(channel.bell(), 1)
            bell = asyncio.create_task(channel.bell())
            await asyncio.sleep(0.02)
            assert not bell.done()
        await asyncio.wait_for(bell, 1)
        channel.close()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        await channel.send(Verb.STOP)


async def test_one_connection_serves_all_who_want_one_at_once(tmp_path):
    path = tmp_path / "control.sock"
    loop = asyncio.get_running_loop()
    with listen_unix(path) as server:
        channel = GuestChannel(path)
        bell = asyncio.create_task(channel.bell())
        await asyncio.gather(channel.send(Verb.STOP), channel.send(Verb.STOP))
        guest, _ = await loop.sock_accept(server)
        with guest:
            received = b""
            while len(received) < 14:
                received += await loop.sock_recv(guest, 100)
            assert received == b"stop 0\nstop 0\n"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_accept(server), 0.05)
            await loop.sock_sendall(guest, b"x")
            await bell
        channel.close()


def test_a_socket_takes_the_place_of_an_old_one(tmp_path):
    path = tmp_path / "x.sock"
    listen_unix(path).close()
    with pytest.raises(ConnectionRefusedError):
        connect_unix(path)
    with listen_unix(path), connect_unix(path) as client:
        assert client.family is socket.AF_UNIX
