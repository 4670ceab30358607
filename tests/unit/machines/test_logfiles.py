import asyncio
import struct

import pytest

from uhm_machines.logfiles import follow_log, punch_oldest, read_tail_text
from uhm_machines.output import LogSource


def frame(data, *, stream=1):
    return struct.pack(">B3xIQ", stream, len(data), 7) + data


async def read(path, source=LogSource.OUTPUT, **options):
    return [(entry.stream, entry.data) async for entry in follow_log(path, source, **options)]


async def test_a_file_that_is_not_there_is_empty(tmp_path):
    assert await read(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, []),
        (1, [("stdout", b"d")]),
        (2, [("stderr", b"c\n"), ("stdout", b"d")]),
        (3, [("stdout", b"b1b2\n"), ("stderr", b"c\n"), ("stdout", b"d")]),
        (99, [("stdout", b"a\n"), ("stdout", b"b1b2\n"), ("stderr", b"c\n"), ("stdout", b"d")]),
    ],
)
async def test_the_last_lines(tmp_path, lines, expected):
    path = tmp_path / "output"
    path.write_bytes(frame(b"a\nb1") + frame(b"b2\n") + frame(b"c\n", stream=2) + frame(b"d"))
    assert await read(path, tail=lines) == expected


async def test_following_reads_what_is_added_until_the_end(tmp_path):
    path, ended = tmp_path / "output", False
    path.write_bytes(frame(b"first\n")[:-3])
    task = asyncio.create_task(read(path, until=lambda: ended))
    await asyncio.sleep(0.05)
    with path.open("ab") as file:
        file.write(b"st\n" + frame(b"second\n"))
    ended = True
    assert await task == [("stdout", b"first\n"), ("stdout", b"second\n")]


@pytest.mark.parametrize("rounds", [1, 3])
async def test_the_oldest_is_punched_out_at_a_frame(tmp_path, rounds):
    path = tmp_path / "output"
    number = 0
    for _ in range(rounds):
        with path.open("ab") as file:
            for _ in range(3000):
                file.write(frame(f"line {number}\n".encode() * 7))
                number += 1
        assert punch_oldest(path, LogSource.OUTPUT, keep=128 * 1024) > 0
        assert path.stat().st_blocks * 512 <= 128 * 1024
    entries = await read(path)
    assert len(entries) > 300
    first = int(entries[0][1].split()[1])
    assert [int(data.split()[1]) for _, data in entries] == list(range(first, number))
    assert punch_oldest(path, LogSource.OUTPUT, keep=128 * 1024) == 0


async def test_the_console_is_punched_at_a_line(tmp_path):
    path = tmp_path / "console.log"
    path.write_text("".join(f"message {number}\n" for number in range(30_000)))
    assert punch_oldest(path, LogSource.CONSOLE, keep=64 * 1024) > 0
    text = b"".join([data for _, data in await read(path, LogSource.CONSOLE)]).decode()
    assert text.startswith("message ")
    assert text.endswith("message 29999\n")
    assert read_tail_text(path, lines=2) == "message 29998\nmessage 29999"


async def test_a_follower_that_is_behind_goes_on_after_the_hole(tmp_path):
    path, ended = tmp_path / "output", False
    path.write_bytes(frame(b"seen\n") + frame(b"half")[:-2])
    entries = []

    async def follow():
        async for entry in follow_log(path, LogSource.OUTPUT, until=lambda: ended):
            entries.append(entry.data)  # noqa: PERF401 - looked at while it grows

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    with path.open("ab") as file:
        file.write(b"lf")
        for number in range(5000):
            file.write(frame(f"{number}\n".encode() * 10))
    punch_oldest(path, LogSource.OUTPUT, keep=64 * 1024)
    ended = True
    await task
    assert entries[0] == b"seen\n"
    numbers = [int(data.split()[0]) for data in entries[1:]]
    assert numbers == list(range(numbers[0], 5000))


def test_nothing_is_punched_out_of_nothing(tmp_path):
    assert punch_oldest(tmp_path / "nothing", LogSource.OUTPUT, keep=1) == 0
    assert read_tail_text(tmp_path / "nothing", lines=3) == ""
