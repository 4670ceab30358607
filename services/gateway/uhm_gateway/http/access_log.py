"""One line for each request, as `log.info("http.answered", …)` would write it, but written many at a time."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from uhm_common.callers.calls import Call

__all__ = ["AccessLog"]

FLUSH_SECONDS = 0.1


class AccessLog:
    """Lines that are kept for a moment. `close` writes the last of them."""

    def __init__(self, *, level: str, stream: TextIO = sys.stderr) -> None:
        """Nothing is written where the level leaves out `info`."""
        self._enabled = level in {"debug", "info"}
        self._stream = stream
        self._lines: list[str] = []

    def answered(self, caller: Call, *, method: str, path: str, status: int, started: float) -> None:
        """Notes an answer; `started` is of time.perf_counter."""
        if not self._enabled:
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.close)
        milliseconds = (time.perf_counter() - started) * 1000
        self._lines.append(
            f'{{"method": {_quoted(method)}, "path": {_quoted(path)}, "status": {status}, "ms": {milliseconds:.2f}, '
            f'"request_id": {_quoted(caller.request_id)}, "event": "http.answered", "service": "gateway", '
            f'"level": "info", "timestamp": "{_timestamp(time.time_ns())}"}}\n'
        )

    def close(self) -> None:
        """Writes what is kept."""
        if self._lines:
            self._stream.write("".join(self._lines))
            self._stream.flush()
            self._lines.clear()


def _timestamp(nanoseconds: int) -> str:
    """A time since the epoch as datetime.isoformat would show it in UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{_to_the_second(seconds)}.{rest // 1000:06d}+00:00"


@lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
