import random
import struct

import pytest

from uhm_machines.output import ConsoleDecoder, FrameDecoder, LogEntry, LogSource, decoder_of


def frame(data, *, stream=1, time_ns=5):
    return struct.pack(">B3xIQ", stream, len(data), time_ns) + data


def decoded(pieces):
    decoder = FrameDecoder()
    return [entry for piece in pieces for entry in decoder.feed(piece)]


ENTRIES = [
    LogEntry(stream="stdout", data=b"hello\n", time_ns=1),
    LogEntry(stream="stderr", data=b"", time_ns=2),
    LogEntry(stream="stderr", data=bytes(range(256)), time_ns=2**63),
]
STREAM = b"".join(
    frame(entry.data, stream={"stdout": 1, "stderr": 2}[entry.stream], time_ns=entry.time_ns) for entry in ENTRIES
)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 1000])
def test_frames_come_out_whole_however_they_arrive(size):
    assert decoded(STREAM[at : at + size] for at in range(0, len(STREAM), size)) == ENTRIES


def test_an_incomplete_frame_waits():
    decoder = FrameDecoder()
    assert list(decoder.feed(frame(b"abc")[:-1])) == []
    assert [entry.data for entry in decoder.feed(b"c")] == [b"abc"]


@pytest.mark.parametrize("junk", [b"\0" * 5000, b"\0", b"\xff" * 100])
def test_what_is_no_frame_is_passed_over(junk):
    assert decoded([junk + STREAM]) == ENTRIES
    assert decoded([junk, STREAM]) == ENTRIES


def test_a_frame_longer_than_any_is_no_frame():
    assert decoded([struct.pack(">B3xIQ", 1, 1 << 31, 0) + bytes(100)]) == []


def test_reset_forgets_half_a_frame():
    decoder = FrameDecoder()
    list(decoder.feed(STREAM[:10]))
    decoder.reset()
    assert list(decoder.feed(STREAM)) == ENTRIES


def test_random_pieces():
    numbers = random.Random(1)
    entries = [LogEntry(stream="stdout", data=numbers.randbytes(numbers.randrange(300)), time_ns=n) for n in range(200)]
    stream = b"".join(frame(entry.data, time_ns=entry.time_ns) for entry in entries)
    cuts = sorted(numbers.randrange(len(stream)) for _ in range(100))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decoded(pieces) == entries


def test_the_console_comes_as_it_is_without_holes():
    assert list(ConsoleDecoder().feed(b"\0\0ab\r\n")) == [LogEntry(stream="console", data=b"ab\r\n")]
    assert list(ConsoleDecoder().feed(b"\0\0")) == []


def test_each_source_has_its_decoder():
    assert isinstance(decoder_of(LogSource.OUTPUT), FrameDecoder)
    assert isinstance(decoder_of(LogSource.CONSOLE), ConsoleDecoder)
