"""A server of the REST API in this process, for the client and the commands."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from uhm.__main__ import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    token: str
    key: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error to answer."""

    status: int
    code: int
    message: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """The connection breaks off instead."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages to answer as a stream; one that is a Refusal ends it."""

    messages: list[Any]


Answer = dict[str, Any] | Refusal | Silence | Stream


@dataclass
class FakeServer:
    """Answers by method and path, percent-encoded as sent; remembers what it was asked."""

    url: str = ""
    answers: dict[str, Answer | Callable[[Request], Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        found = self.answers.get(f"{request.method} {request.path}", Refusal(404, 5, f"There is no {request.path}."))
        return found(request) if callable(found) else found

    def asked(self, line: str) -> list[Request]:
        return [request for request in self.requests if f"{request.method} {request.path}" == line]


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query)),
                token=self.headers.get("authorization", "").removeprefix("Bearer "),
                key=self.headers.get("idempotency-key", ""),
                body=self._body(),
            )
            answer = server.answer(request)
            match answer:
                case Silence():
                    self.connection.shutdown(socket.SHUT_RDWR)
                case Refusal():
                    details = [{"reason": answer.reason}] if answer.reason else []
                    self._send(answer.status, {"code": answer.code, "message": answer.message, "details": details})
                case Stream():
                    lines = [
                        {"error": {"code": message.code, "message": message.message}}
                        if isinstance(message, Refusal)
                        else {"result": message}
                        for message in answer.messages
                    ]
                    self._send(200, *lines)
                case _:
                    self._send(200, answer)

        do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, status: int, *documents: Any) -> None:
            self.send_response(status)
            self.end_headers()
            for document in documents:
                self.wfile.write(json.dumps(document).encode() + b"\n")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that the environment of the command line names; its configuration is the test's own."""
    fake = FakeServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake)) as listening:
        fake.url = f"http://127.0.0.1:{listening.server_address[1]}"
        monkeypatch.setenv("UHM_URL", fake.url)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.delenv("UHM_TOKEN", raising=False)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        listening.shutdown()
        thread.join()


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def uhm(monkeypatch, capfdbinary):
    """Runs the command line in this process."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr("sys.argv", ["uhm", *arguments])
        capfdbinary.readouterr()
        code = run()
        out, err = capfdbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return call
