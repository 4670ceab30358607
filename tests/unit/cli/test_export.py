"""`uhm export`: what it asks for, and what becomes of the file."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from uhm.__main__ import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK = b"QFI\xfb" + bytes(3 << 20) + b"end" + bytes(2 << 20)
DIGEST = f"sha256:{hashlib.sha256(DISK).hexdigest()}"
PHASES = [{"name": "compose", "start_ms": 0, "duration_ms": 2, "bytes": 0}]


@dataclass
class Server:
    """Answers an export: with these bytes, under that digest."""

    content: bytes = DISK
    digest: str = DIGEST
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that the environment names, in the test's own directory."""
    told = Server()
    with listening(told) as url:
        monkeypatch.setenv("UHM_URL", url)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.chdir(tmp_path)
        yield told


@contextmanager
def listening(told: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.asked.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", str(len(DISK)))
            self.send_header("Grpc-Metadata-Uhm-Digest", told.digest)
            self.send_header("Grpc-Metadata-Uhm-Size", str(len(DISK)))
            self.send_header("Grpc-Metadata-Uhm-Phases", json.dumps(PHASES))
            for finding in ("partition table: gpt", "command: /bin/sh"):
                self.send_header("Grpc-Metadata-Uhm-Findings", finding)
            self.end_headers()
            self.wfile.write(told.content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.fixture
def uhm(monkeypatch: pytest.MonkeyPatch, server: Server) -> Any:
    def command(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["uhm", "export", *arguments])
        return run()

    return command


def test_a_file_gets_its_name_when_it_is_whole(
    uhm: Any, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert uhm("shop:1", "-o", "shop.vhd", "--size", "20G", "--seal", "--verify") == 0

    assert (tmp_path / "shop.vhd").read_bytes() == DISK
    assert (tmp_path / "shop.vhd").stat().st_blocks * 512 < 1 << 20, "zeros are holes"
    assert [path.name for path in tmp_path.iterdir()] == ["shop.vhd"]
    assert server.asked == [
        (
            "/api/v1/images/shop%3A1:export",
            {"format": "vpc", "compression": "", "seal": True, "verify": True, "size_bytes": 20 << 30},
        )
    ]
    said = capsys.readouterr().out
    for word in ("compose", "transfer", "partition table: gpt", "command: /bin/sh", DIGEST):
        assert word in said


@pytest.mark.parametrize(
    ("file", "more", "chosen"),
    [
        ("a.img", [], "raw"),
        ("a.OVA", [], "ova"),
        ("a", [], "qcow2"),
        ("a.vmdk", ["--format", "vdi"], "vdi"),
    ],
)
def test_the_name_says_the_format(uhm: Any, server: Server, file: str, more: list[str], chosen: str) -> None:
    assert uhm("shop", "-o", file, *more) == 0
    assert server.asked[0][1]["format"] == chosen


def test_standard_output_has_the_disk_and_nothing_else(uhm: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert uhm("shop", "-o", "-") == 0
    written = capfdbinary.readouterr()
    assert written.out == DISK
    assert DIGEST.encode() in written.err


@pytest.mark.parametrize(
    ("content", "digest", "sentence"),
    [
        (DISK, f"sha256:{'0' * 64}", "did not come whole"),
        (DISK[:-1], DIGEST, "broke off"),
    ],
)
def test_what_is_not_whole_leaves_no_file(
    uhm: Any,
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    digest: str,
    sentence: str,
) -> None:
    (tmp_path / "shop.qcow2").write_bytes(b"the one before")
    server.content, server.digest = content, digest
    assert uhm("shop", "-o", "shop.qcow2") == 1
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["shop.qcow2"]
    assert (tmp_path / "shop.qcow2").read_bytes() == b"the one before"


def test_a_document_and_a_disk_do_not_share_standard_output(uhm: Any, server: Server) -> None:
    assert uhm("shop", "-o", "-", "--json") == 2
    assert server.asked == []
