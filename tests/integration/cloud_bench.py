"""What the tests of /portable/cloud share: the program run on this host, with directories for a root and for metadata.

A pytest plugin. PYTEST_DONT_REWRITE: the tests import it before it is loaded.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "build/guest/portable/cloud"
SECONDS = 30
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
GROUP = "root:x:0:\nusers:x:100:\nnobody:x:65534:\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files and networks of its own need root")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the program has said."""

    pairs: tuple[tuple[str, str], ...]
    """What it has written for init."""
    problems: tuple[str, ...]
    """The lines on the console."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A root and metadata; the metadata is NoCloud's until files below `openstack/` are written."""

    root: Path
    source: Path

    def give(self, name: str, content: str | bytes) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def run(self, user_data: str | bytes | None = None) -> Answer:
        """Run it, without touching the network."""
        if user_data is not None:
            self.give("user-data", user_data)
        return run(PROGRAM, "--source", self.source, "--no-network", self.root)

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def lines(self, path: str) -> list[str]:
        return self.text(path).splitlines()


def run(*command: str | Path) -> Answer:
    """Run a command that ends in the program, as init does: with a pipe on descriptor 3."""
    script = 'exec "$@" 3>&1 >&2'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done
    words = done.stdout.decode().split("\0")
    assert words.pop() == ""
    return Answer(
        pairs=tuple(zip(words[::2], words[1::2], strict=True)),
        problems=tuple(done.stderr.decode().splitlines()),
    )


@pytest.fixture(scope="session")
def program() -> Path:
    subprocess.run(["make", "-s", "-C", str(REPOSITORY / "guest")], check=True, timeout=120)
    return PROGRAM


@pytest.fixture
def cloud(program: Path, tmp_path: Path) -> Cloud:
    made = Cloud(root=tmp_path / "root", source=tmp_path / "source")
    (made.root / "etc").mkdir(parents=True)
    (made.root / "etc/passwd").write_text(PASSWD)
    (made.root / "etc/group").write_text(GROUP)
    made.source.mkdir()
    made.give("meta-data", "instance-id: first\nlocal-hostname: shop.example.org\n")
    return made
