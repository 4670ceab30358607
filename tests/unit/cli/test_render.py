"""What the terminal shows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from uhm.render.tables import columns, images_table, machine_status, machines_table, port_text
from uhm.render.units import age, milliseconds, moment, short_id, size
from uhm.render.waterfall import waterfall

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (None, "0 B"), ("999", "999 B"), (1000, "1 kB"), (182_452_224, "182 MB"), (1_234_000_000, "1.23 GB"),
     (999_999, "1 MB"), (5e15, "5000 TB")],
)  # fmt: skip
def test_size(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 ms"), (8.41, "8.4 ms"), (143.2, "143 ms"), (1210, "1.21 s"), (61000, "61.00 s")]
)
def test_milliseconds(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("2026-01-02T11:59:59.5Z", "0 seconds"),
        ("2026-01-02T11:59:59Z", "1 second"),
        ("2026-01-02T11:57:00.123456789Z", "2 minutes"),
        ("2026-01-02T09:00:00Z", "3 hours"),
        ("2025-12-30T12:00:00Z", "3 days"),
        ("2025-12-12T12:00:00Z", "3 weeks"),
        ("2023-12-12T12:00:00Z", "2 years"),
        ("2026-01-02T12:00:05Z", "0 seconds"),
        (None, ""),
    ],
)
def test_age(time, text):
    assert age(time, now=NOW) == text


def test_moment_has_microseconds():
    assert moment("2026-01-02T11:57:00.123456789Z") == datetime(2026, 1, 2, 11, 57, 0, 123456, tzinfo=UTC)


def test_short_id():
    assert short_id("sha256:0123456789abcdef") == "0123456789ab"


def test_columns_are_as_wide_as_their_widest_cell():
    assert columns(("A", "LONGER"), [("xxx", "y"), ("z", "")]) == "A     LONGER\nxxx   y\nz"


def test_images_table():
    image = {"id": "a" * 32, "reference": "nginx:latest", "status": "ready", "size_bytes": "182000000", "layers": [{}]}
    text = images_table([image | {"create_time": "2026-01-02T11:59:00Z"}], now=NOW)
    assert text.splitlines()[1].split() == [
        "nginx:latest", "a" * 12, "ready", "1", "minute", "ago", "1", "182", "MB",
    ]  # fmt: skip


def test_machines_table():
    machine = {
        "id": "b" * 32,
        "name": "quiet-otter",
        "image_reference": "nginx:latest",
        "status": "running",
        "start_time": "2026-01-02T11:00:00Z",
        "command": ["nginx", "-g", "daemon off; error_log stderr"],
        "ports": [{"host_address": "127.0.0.1", "host_port": 8080, "guest_port": 80, "protocol": "tcp"}],
    }
    row = machines_table([machine], now=NOW).splitlines()[1]
    assert "nginx -g daemon off; er…" in row
    assert "running 1 hour" in row
    assert "127.0.0.1:8080->80/tcp" in row
    assert row.endswith("quiet-otter")


def test_machine_status():
    ended = {"status": "exited", "exit_code": 0, "end_time": "2026-01-02T11:59:00Z"}
    assert machine_status(ended, now=NOW) == "exited (0) 1 minute ago"
    assert machine_status({"status": "created"}, now=NOW) == "created"


def test_port_text():
    assert port_text({"host_port": 53, "guest_port": 53, "protocol": "udp"}) == "127.0.0.1:53->53/udp"
    assert port_text({"host_address": "::1", "host_port": 1, "guest_port": 2}) == "[::1]:1->2/tcp"


def test_waterfall():
    phases = [
        {"name": "resolve", "start_ms": 0.0, "duration_ms": 100.0},
        {"name": "convert", "start_ms": 100.0, "duration_ms": 250.0},
        {"name": "compose", "start_ms": 350.0, "duration_ms": 50.0},
    ]
    assert waterfall(phases, width=8) == [
        "  resolve  ██          100 ms",
        "  convert    █████     250 ms",
        "  compose         █     50 ms",
        "  total                400 ms",
    ]


def test_waterfall_of_nothing():
    assert waterfall([]) == []
    assert waterfall([{"name": "prepare"}], width=4)[0] == "  prepare  ▏       0.0 ms"
