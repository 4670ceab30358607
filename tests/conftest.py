"""For every kind of test: real servers that are gone in the end, and a look at what else should be."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import hypothesis
import pytest

from tests.leaks import traces
from tests.servers import NatsServer, Postgres
from tools.local_registry import ensure_images, registry

SETTLE_SECONDS = 10.0

hypothesis.settings.register_profile("untimed", deadline=None)  # machines are noisy
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind():
    """After the whole run no process, mount, loop device or temporary file of ours is left."""
    before = traces()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := traces() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "left behind:\n" + "\n".join(sorted(left))


@pytest.fixture
def free_port():
    """Picks ports of loopback that nobody uses."""

    def pick() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return pick


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(found[-1].parent)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres) -> str:
    """An empty database of the test's own."""
    return postgres.new_database()


@pytest.fixture
def nats_server(free_port):
    """A NATS server that is not started yet."""
    server = NatsServer(free_port())
    yield server
    server.remove()


@pytest.fixture
def nats_url(nats_server) -> str:
    """The address of a NATS server that runs."""
    nats_server.start()
    return nats_server.url


@pytest.fixture(scope="session")
def mirror():
    """A registry with debian, nginx and hello in it."""
    ensure_images()
    with registry() as url:
        yield url
