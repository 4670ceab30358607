"""The least that speaks HTTP/1.1, so that servers are measured and not a client library.

The client shares the processor with what it measures, and the faster server suffers more from a slow client. Hence bare
sockets and one poll over them: a request costs it about 10 µs, which is less than any server here takes to answer one.
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


def requests_per_second(port: int, request: bytes, *, count: int, connections: int) -> float:
    """How many are answered in a second, on so many kept connections, on each of which one follows the other.

    Raises ConnectionError for a connection that the server closes, AssertionError for an answer that is not 200, and
    TimeoutError where none comes.
    """
    clients = {client.fileno(): client for client in (_connected(port) for _ in range(min(connections, count)))}
    poll = select.epoll()
    received = dict.fromkeys(clients, b"")
    try:
        started = time.perf_counter()
        for number, client in clients.items():
            poll.register(number, select.EPOLLIN)
            client.send(request)
        to_send, to_come = count - len(clients), count
        while to_come:
            ready = poll.poll(ANSWER_SECONDS)
            if not ready:
                raise TimeoutError("no answer")
            for number, _ in ready:
                piece = clients[number].recv(RECEIVED_BYTES)
                if not piece:
                    raise ConnectionError("the server closed the connection")
                answer = received[number] + piece
                if not _is_whole(answer):
                    received[number] = answer
                    continue
                received[number] = b""
                to_come -= 1
                if to_send:
                    to_send -= 1
                    clients[number].send(request)
        return count / (time.perf_counter() - started)
    finally:
        poll.close()
        for client in clients.values():
            client.close()


def _connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _is_whole(answer: bytes) -> bool:
    """Whether that is all of an answer that says how long it is."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    assert answer.startswith(b"HTTP/1.1 200"), answer.decode()
    length = _LENGTH.search(answer, 0, end)
    assert length is not None, answer.decode()
    return len(answer) >= end + 4 + int(length[1])
