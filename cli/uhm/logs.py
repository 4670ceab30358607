"""What a workload wrote: to where it belongs, byte by byte as it came."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LogWriter", "collect"]


class LogWriter:
    """Writes pieces of standard output and standard error to ours; the console goes to standard output."""

    def __init__(
        self, *, timestamps: bool = False, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None
    ) -> None:
        self._timestamps = timestamps
        self._stdout = stdout or sys.stdout.buffer
        self._stderr = stderr or sys.stderr.buffer

    def write(self, message: dict[str, Any]) -> None:
        """One message of the stream, written at once."""
        target = self._stderr if message.get("stream") == "stderr" else self._stdout
        content = _content(message)
        if self._timestamps:
            stamp = f"{message.get('time', '')} ".encode()
            content = b"".join(stamp + line for line in content.splitlines(keepends=True))
        target.write(content)
        target.flush()


def collect(messages: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """The whole stream as JSON: what is no UTF-8 is replaced."""
    return [
        {
            "time": message.get("time", ""),
            "stream": message.get("stream", ""),
            "text": _content(message).decode(errors="replace"),
        }
        for message in messages
    ]


def _content(message: dict[str, Any]) -> bytes:
    return base64.b64decode(message.get("data", ""))
