"""How streams are framed, lines and events alike."""

import asyncio
import json

import pytest

from uhm_gateway.rest import endpoint
from uhm_gateway.rest.framing import EVENTS, LINES, RAW, framing_for


@pytest.mark.parametrize(
    ("accept", "framing"),
    [
        ("", LINES),
        ("*/*", LINES),
        ("application/json", LINES),
        ("text/*", LINES),
        ("text/event-stream", EVENTS),
        ("Text/Event-Stream; charset=utf-8", EVENTS),
        ("text/event-stream, */*", EVENTS),
        ("application/x-ndjson;q=0.5, text/event-stream", EVENTS),
        ("application/x-ndjson, text/event-stream;q=0.5", LINES),
        ("text/event-stream;q=0", LINES),
    ],
)
def test_what_accept_asks_for(accept, framing):
    assert framing_for(accept, is_raw=False) is framing


def test_bytes_stay_bytes():
    assert framing_for("text/event-stream", is_raw=True) is RAW


def events(text):
    """As the HTML standard says that a stream of events is read."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            yield fields.get("event", "message"), json.loads(fields["data"])


def test_events():
    text = EVENTS.message(b'{"a":1}') + EVENTS.pulse + EVENTS.message(b"[2]") + EVENTS.error(b'{"code":5}')
    assert list(events(text.decode())) == [
        ("message", {"result": {"a": 1}}),
        ("message", {"result": [2]}),
        ("error", {"error": {"code": 5}}),
    ]


def test_lines():
    text = LINES.message(b'{"a":1}') + LINES.error(b'{"code":5}')
    assert [json.loads(line) for line in text.splitlines()] == [{"result": {"a": 1}}, {"error": {"code": 5}}]
    assert LINES.pulse == b""


def test_raw_bytes_have_no_place_for_an_error():
    assert RAW.message(b"\x89PNG") == b"\x89PNG"
    assert RAW.error(b'{"code":5}') == b""


class Recorder:
    """An exchange that remembers what is written."""

    def __init__(self):
        self.written = []
        self.twice = asyncio.Event()

    async def write(self, body):
        self.written.append(body)
        if len(self.written) == 2:
            self.twice.set()


async def test_a_quiet_stream_of_events_has_a_pulse(monkeypatch):
    monkeypatch.setattr(endpoint, "PULSE_SECONDS", 0.001)
    recorder = Recorder()
    async with endpoint._pulsing(recorder, EVENTS):
        await asyncio.wait_for(recorder.twice.wait(), 10)
    written = len(recorder.written)
    assert set(recorder.written) == {EVENTS.pulse}
    assert list(events("".join(pulse.decode() for pulse in recorder.written))) == []
    await asyncio.sleep(0.05)
    assert len(recorder.written) == written


@pytest.mark.parametrize("framing", [LINES, RAW])
async def test_others_have_none(monkeypatch, framing):
    monkeypatch.setattr(endpoint, "PULSE_SECONDS", 0.001)
    recorder = Recorder()
    async with endpoint._pulsing(recorder, framing):
        await asyncio.sleep(0.05)
    assert recorder.written == []
