"""The page that tells that a server serves."""

from __future__ import annotations

import contextlib
import socket
import time

__all__ = ["GIVE_UP_SECONDS", "PAGE_PORT", "first_byte"]

PAGE_PORT = 80
GIVE_UP_SECONDS = 120.0
# A forwarded port takes connections before the guest does, and what is sent then may be lost: ask again, soon.
_ANSWER_SECONDS = (0.1, 0.2, 0.4, 0.8)
_RETRY_SECONDS = 0.005


def first_byte(port: int) -> bool:
    """Asks for the page until a byte of it comes; answers whether one came."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    attempt = 0
    while time.monotonic() < deadline:
        patience = _ANSWER_SECONDS[min(attempt, len(_ANSWER_SECONDS) - 1)]
        attempt += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            if sock.recv(1):
                return True
        time.sleep(_RETRY_SECONDS)
    return False
