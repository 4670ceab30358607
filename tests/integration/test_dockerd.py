"""A private engine runs containers, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from pathlib import Path

import docker
import pytest

from tools.local_registry import ensure_images, registry
from uhm_common.dockerd import DockerdFailed, PrivateDockerd
from uhm_common.errors import FailedPrecondition
from uhm_common.leftovers import processes_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="an engine of our own needs root"),
]


@pytest.fixture(scope="module")
def mirror():
    ensure_images()
    with registry() as url:
        yield url


@pytest.fixture
def engine(tmp_path, mirror):
    engine = PrivateDockerd(tmp_path / "engine", registry_mirror=mirror, bridge=True)
    yield engine
    engine.remove()


def traces(engine: PrivateDockerd) -> list[str]:
    """All that exists because of an engine, outside its directory."""
    name = engine.socket.parent.name
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(engine.directory) in line]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{name}")]
    files = [str(path) for path in (engine.socket.parent, Path("/sys/class/net", engine.bridge_name)) if path.exists()]
    return mounts + cgroups + files + [str(pid) for pid in processes_of(name, programs=("dockerd", "containerd"))]


def run_nginx(engine: PrivateDockerd) -> str:
    """Starts nginx with a published port and answers its page."""
    client = docker.DockerClient(base_url=engine.host)
    try:
        container = client.containers.run("nginx", detach=True, ports={"80/tcp": ("127.0.0.1", 0)})
        container.reload()
        [published, *_] = container.ports["80/tcp"] or []
        port = published["HostPort"]
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as page:
                    return page.read().decode()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        client.close()


def test_containers_serve_and_all_ends_with_the_engine(engine):
    with engine:
        assert "virtual machine" in run_nginx(engine)
        assert traces(engine)
    assert traces(engine) == []
    assert engine.directory.exists()
    engine.remove()
    assert not engine.directory.exists()


def test_another_process_clears_up_after_a_crash_and_images_are_kept(engine):
    engine.start()
    run_nginx(engine)
    for pid in processes_of(engine.socket.parent.name, programs=("dockerd",)):
        os.kill(pid, signal.SIGKILL)
    another = PrivateDockerd(engine.directory, bridge=True)
    another.stop()
    assert traces(engine) == []
    with another:
        client = docker.DockerClient(base_url=another.host)
        assert [image.tags for image in client.images.list()] == [["nginx:latest"]]
        client.close()


def test_a_second_engine_on_the_same_directory_is_refused(engine):
    with engine, pytest.raises(FailedPrecondition, match="already runs"):
        PrivateDockerd(engine.directory).start()
    engine.stop()


def test_an_engine_that_cannot_start_says_why_and_leaves_nothing(tmp_path):
    engine = PrivateDockerd(tmp_path / "engine", registry_mirror="no address")
    with pytest.raises(DockerdFailed, match="no address"):
        engine.start()
    assert traces(engine) == []
