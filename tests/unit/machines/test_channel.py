import asyncio
import socket
import time
from dataclasses import replace

import pytest

from uhm_machines.channel import (
    EventLog,
    GuestChannel,
    GuestEvent,
    Verb,
    encode_check,
    encode_restore,
    encode_run,
    parse_event,
)
from uhm_machines.files import connect_unix, listen_unix
from uhm_machines.machine import Workload

WORKLOAD = Workload(
    argv=("sh", "", "-c"), env=("A=1", "B="), working_dir="", user="app", hostname="box", stop_signal=15,
    watched_ports=(80, 443),
)  # fmt: skip


def decoded(payload):
    words = payload.decode().split("\0")
    assert words.pop() == ""
    return list(zip(words[::2], words[1::2], strict=True))


def is_now(pair):
    return pair[0] == "time" and abs(int(pair[1]) - time.time_ns()) < 60e9


def test_run_holds_pairs_in_order():
    pairs = decoded(encode_run(WORKLOAD, machine_id="ab12"))
    assert pairs[:10] == [
        ("arg", "sh"), ("arg", ""), ("arg", "-c"), ("env", "A=1"), ("env", "B="), ("port", "80"), ("port", "443"),
        ("user", "app"), ("hostname", "box"), ("machine-id", "ab12"),
    ]  # fmt: skip
    assert is_now(pairs[10])
    assert len(pairs) == 11


def test_a_guest_that_was_restored_gets_randomness_of_its_own():
    first, second = (decoded(encode_run(WORKLOAD, machine_id="ab12", reseed=True)) for _ in range(2))
    assert [pair[0] for pair in first[10:]] == ["time", "entropy"]
    assert len(bytes.fromhex(first[-1][1])) >= 32
    assert first[-1] != second[-1]


def test_restore_tells_a_clone_who_it_is():
    first, second = (decoded(encode_restore(hostname="box", machine_id="ab12")) for _ in range(2))
    assert first[:2] == [("hostname", "box"), ("machine-id", "ab12")]
    assert is_now(first[2])
    assert [pair[0] for pair in first[3:]] == ["entropy"]
    assert first[3] != second[3]


def test_a_check_is_a_command_and_its_time():
    assert decoded(encode_check(["sh", "", "-c"], timeout_ms=1500)) == [
        ("arg", "sh"), ("arg", ""), ("arg", "-c"), ("timeout", "1500"),
    ]  # fmt: skip


def test_a_message_of_the_largest_request_fits():
    words = tuple("x" * 511 for _ in range(1000))
    workload = replace(WORKLOAD, argv=words, env=words, watched_ports=tuple(range(60000, 60064)))
    assert len(encode_run(workload, machine_id="a" * 32, reseed=True)) <= 1 << 20


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
