"""A server in the test's own process that takes GET, HEAD, PUT and DELETE, and nothing else unless it is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class PutServer:
    """Content by path; `fail` holds statuses to answer first, by method and path; what is put is kept as `kept`."""

    content: dict[str, bytes] = field(default_factory=dict)
    fail: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    kept: object = bytes
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    def __init__(self, server: PutServer, *args) -> None:
        self.store = server
        super().__init__(*args)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.store.requests.append((self.command, self.path))
        if self.store.fail.get((self.command, self.path)):
            self.close_connection = True
            self.answer(self.store.fail[self.command, self.path].pop(0))
            return False
        return True

    def do_GET(self) -> None:
        known = self.path in self.store.content
        self.answer(200 if known else 404, self.store.content.get(self.path, b""))

    do_HEAD = do_GET  # noqa: N815 - http.server's names

    def do_PUT(self) -> None:
        self.store.content[self.path] = self.store.kept(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(201)

    def do_DELETE(self) -> None:
        self.answer(204 if self.store.content.pop(self.path, None) is not None else 404)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Says nothing."""
