"""Lines for requests, many at a time."""

from __future__ import annotations

import asyncio
import io
import json
import time
from datetime import datetime

import pytest

from uhm_common.callers.calls import Call
from uhm_gateway.http.access_log import FLUSH_SECONDS, AccessLog


def note(log: AccessLog, path: str) -> None:
    log.answered(Call(request_id="r"), method="GET", path=path, status=200, started=time.perf_counter())


async def test_lines_are_written_together_after_a_moment() -> None:
    written = io.StringIO()
    log = AccessLog(level="info", stream=written)
    note(log, '/a"\n')
    note(log, "/b")
    assert written.getvalue() == ""
    await asyncio.sleep(FLUSH_SECONDS * 2)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["path"] for line in lines] == ['/a"\n', "/b"]
    assert abs(datetime.fromisoformat(lines[0]["timestamp"]).timestamp() - time.time()) < 60
    assert {"event", "level", "service", "timestamp", "ms", "status", "method", "request_id"} <= lines[0].keys()


async def test_the_end_writes_the_last() -> None:
    written = io.StringIO()
    log = AccessLog(level="debug", stream=written)
    note(log, "/a")
    log.close()
    log.close()
    assert written.getvalue().count("\n") == 1


@pytest.mark.parametrize("level", ["warning", "error"])
async def test_a_level_without_info(level: str) -> None:
    written = io.StringIO()
    log = AccessLog(level=level, stream=written)
    note(log, "/a")
    log.close()
    assert written.getvalue() == ""
