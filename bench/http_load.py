"""The least that speaks HTTP/1.1, so that servers are measured and not a client library.

The client shares the processor with what it measures, and the faster server suffers more from a slow client. Hence bare
sockets and one poll over them: a request costs it some 15 µs, most of them in the kernel, which is less than any server
here takes to answer one.
"""

from __future__ import annotations

import re
import select
import socket
import time

__all__ = ["requests_per_second"]

ANSWER_SECONDS = 10.0
RECEIVED_BYTES = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Client:
    """A kept connection on which one request follows the answer to the one before. Raises as `requests_per_second`."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = request
        self._received = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> None:
        """Sends the request."""
        self.socket.sendall(self._request)

    def hear(self) -> bool:
        """Takes what has come; answers whether the answer is whole."""
        piece = self.socket.recv(RECEIVED_BYTES)
        if not piece:
            raise ConnectionError("the server closed the connection")
        answer = self._received + piece
        whole = _is_whole(answer)
        self._received = b"" if whole else answer
        return whole


def requests_per_second(port: int, request: bytes, *, count: int, connections: int) -> float:
    """How many are answered in a second, on so many connections, each of which was made and used once before.

    Raises ConnectionError for a connection that the server closes, AssertionError for an answer that is not 200, and
    TimeoutError where none comes.
    """
    clients: dict[int, _Client] = {}
    poll = select.epoll()
    try:
        for _ in range(connections):
            client = _Client(port, request)
            clients[client.socket.fileno()] = client
            client.ask()
            while not client.hear():
                pass
            client.socket.settimeout(None)  # from here on the poll waits
            poll.register(client.socket, select.EPOLLIN)
        return _rate(clients, poll, count=count)
    finally:
        poll.close()
        for client in clients.values():
            client.socket.close()


def _rate(clients: dict[int, _Client], poll: select.epoll, *, count: int) -> float:
    started = time.perf_counter()
    asking = list(clients.values())[:count]
    for client in asking:
        client.ask()
    to_ask, to_come = count - len(asking), count
    while to_come:
        ready = poll.poll(ANSWER_SECONDS)
        if not ready:
            raise TimeoutError("no answer")
        for number, _ in ready:
            client = clients[number]
            if client.hear():
                to_come -= 1
                if to_ask:
                    to_ask -= 1
                    client.ask()
    return count / (time.perf_counter() - started)


def _is_whole(answer: bytes) -> bool:
    """Whether that is all of an answer that says how long it is."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    assert answer.startswith(b"HTTP/1.1 200"), answer.decode()
    length = _LENGTH.search(answer, 0, end)
    assert length is not None, answer.decode()
    return len(answer) >= end + 4 + int(length[1])
