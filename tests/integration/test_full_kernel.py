"""The kernel profile `full` is enough for Docker inside of a machine, started as docs/setup.md says. Takes a minute."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from docker import DockerClient

from tests.integration.guest_bench import (
    MIB,
    MKFS_EROFS,
    REPOSITORY,
    Bench,
    Hardware,
    Machine,
    connect,
    ended,
    exported,
    free_port,
    make_bench,
    make_overlay,
    qemu_argv,
)
from uhm_common.artifacts import ArtifactStore, locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uhm_builder.disk import Disk

pytestmark = pytest.mark.integration

FULL_KERNEL = REPOSITORY / "build/guest/kernels/full"
CACHE = REPOSITORY / "build/full-kernel"
MEMORY_MIB = 1024
SECONDS = 120.0

PACKAGES = "docker.io,busybox-static"
MMDEBSTRAP = ("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", f"--include={PACKAGES}", "bookworm")
EROFS_OPTIONS = ("--tar=f", "--aufs", "--quiet", "-Enoinline_data", "-T0", "--sort=none")

SCRIPT = r"""
set -e
section() { echo "== $1"; }
trap '[ $? = 0 ] || cat /var/log/dockerd.log >&2' EXIT
trap 'section nat; iptables -t nat -vnxL DOCKER; iptables -t nat -vnxL POSTROUTING; exit 0' TERM

start-docker >/var/log/dockerd.log 2>&1 &
until docker version >/dev/null 2>&1; do sleep 0.5; kill -0 $!; done
section versions; docker version --format '{{.Server.Version}}'; iptables --version
section storage; docker info --format '{{.Driver}} {{index .DriverStatus 0}}'

mkdir -p /tiny/bin /tiny/www
cp /bin/busybox /tiny/bin/
for tool in sh cat httpd wget; do ln -s busybox /tiny/bin/$tool; done
echo 'page of a container' >/tiny/www/index.html
tar --directory /tiny --create . | docker import - tiny >/dev/null

section hello; docker run --rm tiny sh -c 'echo hello from inside'
docker run -d --name web -p 8080:80 -p 80:80 tiny httpd -f -p 80 -h /www >/dev/null
section published; busybox wget -qO- http://127.0.0.1:8080/; busybox wget -qO- http://10.0.2.15:8080/
section outside; docker run --rm tiny wget -qO- http://10.0.2.2:$HOST_PORT/
docker network create names >/dev/null
docker network connect names web
section names; docker run --rm --network names tiny wget -qO- http://web/
section lacking; grep -E 'level=(warning|error).*(not supp|modprobe|modules)' /var/log/dockerd.log || true
section limits; docker run --rm -m 64m --cpus 0.5 --pids-limit 99 tiny \
    sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max'
section end
sleep 600 & wait
"""


class Page(BaseHTTPRequestHandler):
    """A page on the host."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page of the host\n")

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


@contextmanager
def host_page() -> Iterator[int]:
    """Serve the page on loopback, which machines reach through their gateway; gives its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, kw_only=True)
class Host:
    """What machines with Docker in them are started from; their state is in `directory`."""

    bench: Bench
    disk: Disk
    directory: Path

    @contextmanager
    def started(self, *args: str, settings: Sequence[tuple[str, str]]) -> Iterator[Machine]:
        """Boot a machine with enough memory for Docker and let it run a command."""
        overlay, port = self.directory / "overlay.qcow2", free_port()
        argv = qemu_argv(self.bench, self.directory, Hardware(memory_mib=MEMORY_MIB), port=port)
        for name in ("events", "output", "console.log"):
            (self.directory / name).write_bytes(b"")
        with exported(self.bench, self.disk, self.directory) as address:
            if not overlay.exists():
                make_overlay(overlay, backing=address)
            with ended(subprocess.Popen(argv)) as qemu, connect(self.directory / "control") as control:
                machine = Machine(directory=self.directory, qemu=qemu, control=control, port=port)
                machine.run(*args, settings=[("port", "80"), ("time", str(time.time_ns())), *settings])
                yield machine


def start_docker() -> bytes:
    """The script of docs/setup.md, as it is there."""
    found = re.search(
        r"^    #!/bin/sh -eu\n(?:(?:    .*)?\n)+", (REPOSITORY / "docs/setup.md").read_text(), re.MULTILINE
    )
    assert found
    return textwrap.dedent(found[0]).rstrip("\n").encode() + b"\n"


def debian_with_docker() -> tuple[str, Path]:
    """A layer of Debian's packages, made once per recipe, as its name and its blob."""
    name = hashlib.sha256(json.dumps([MMDEBSTRAP, EROFS_OPTIONS]).encode()).hexdigest()
    blob = CACHE / f"{name}.erofs"
    with locked(CACHE / "lock", exclusive=True):
        if not blob.exists():
            make_layer(blob)
    return f"sha256:{name}", blob


def make_layer(blob: Path) -> None:
    for stale in CACHE.glob("*.erofs"):
        stale.unlink()
    with tempfile.TemporaryDirectory(dir=CACHE, ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)  # mmdebstrap works there as other users, too
        tar, made = Path(scratch, "debian.tar"), Path(scratch, "debian.erofs")
        subprocess.run([*MMDEBSTRAP, tar], check=True, timeout=200, env=os.environ | {"TMPDIR": scratch})
        subprocess.run([MKFS_EROFS, *EROFS_OPTIONS, made, tar], check=True, timeout=60)
        os.truncate(made, -(-made.stat().st_size // MIB) * MIB)
        made.rename(blob)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if not (FULL_KERNEL / "kernel.json").is_file():
        pytest.skip(f"no kernel in {FULL_KERNEL}; run `make kernel PROFILE=full`")
    bench = make_bench(ArtifactStore(tmp_path_factory.mktemp("full")), FULL_KERNEL)
    debian, blob = debian_with_docker()
    bench.store.layer(debian).parent.mkdir(parents=True)
    bench.store.layer(debian).symlink_to(blob)
    script = bench.layer({"usr/local/bin/start-docker": start_docker()})
    directory = Path(tempfile.mkdtemp(prefix="uhm-docker-", dir="/tmp"))  # short enough for Unix sockets
    yield Host(bench=bench, disk=bench.disk(debian, script), directory=directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def said(host: Host) -> dict[str, str]:
    """What the script has said, by section, and as `host` what the host was served meanwhile."""
    with host_page() as port, host.started("sh", "-c", SCRIPT, settings=[("env", f"HOST_PORT={port}")]) as machine:
        wait_for_end_section(machine)
        machine.wait_for("ready")
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/", timeout=20) as answer:
            page = answer.read().decode()
        machine.send("signal", b"15")
        assert machine.end() == 0, machine.output(stream=2)
        assert "unmounting" not in machine.console()  # what init complains of
    sections = dict(part.split("\n", 1) for part in machine.output().split("== ")[1:])
    return sections | {"host": page}


def wait_for_end_section(machine: Machine) -> None:
    deadline = time.monotonic() + SECONDS
    while "== end\n" not in machine.output():
        late = time.monotonic() > deadline or machine.qemu.poll() is not None
        assert not late, f"{machine.output()}\n{machine.output(stream=2)}\n{machine.console()}"
        time.sleep(0.05)


def packets(chain: str, pattern: str) -> int:
    """How many a rule in a listing of `iptables -vnx` has counted."""
    rule = re.search(rf"^ *(\d+) .*{pattern}", chain, re.MULTILINE)
    assert rule, chain
    return int(rule[1])


def test_docker_runs_over_nf_tables_with_overlays(said: dict[str, str]) -> None:
    engine, iptables = said["versions"].splitlines()
    assert engine.startswith("20.10.")
    assert iptables.endswith("(nf_tables)")
    assert said["lacking"] == ""
    assert said["storage"] == "overlay2 [Backing Filesystem extfs]\n"
    assert said["hello"] == "hello from inside\n"


def test_a_published_port_is_reached_through_nat(said: dict[str, str]) -> None:
    """From the machine itself, through docker-proxy and by its address, and from outside."""
    assert said["published"] == "page of a container\n" * 2
    assert said["host"] == "page of a container\n"
    assert packets(said["nat"], "DNAT .* dpt:8080 to:172.17.0.2:80$") == 1
    assert packets(said["nat"], "DNAT .* dpt:80 to:172.17.0.2:80$") == 1


def test_containers_reach_the_network_and_each_other(said: dict[str, str]) -> None:
    assert said["outside"] == "page of the host\n"
    assert packets(said["nat"], "MASQUERADE .* 172.17.0.0/16 +0.0.0.0/0") == 1
    assert said["names"] == "page of a container\n"


def test_limits_hold(said: dict[str, str]) -> None:
    assert said["limits"].split() == [str(64 * MIB), "50000", "100000", "99"]


def test_the_engine_serves_the_host_after_a_restart(said: dict[str, str], host: Host) -> None:
    """Started again, the machine has its image and its container, here for a client that is outside."""
    options = ("--tls=false", "-H", "unix:///run/docker.sock", "-H", "tcp://0.0.0.0:80")
    with host.started("start-docker", *options, settings=[]) as machine:
        machine.wait_for("ready")
        client = DockerClient(base_url=f"tcp://127.0.0.1:{machine.port}", version="auto", timeout=60)
        try:
            assert [image.tags for image in client.images.list()] == [["tiny:latest"]]
            assert [container.name for container in client.containers.list(all=True)] == ["web"]
            assert client.containers.run("tiny", ["cat", "/www/index.html"], remove=True) == b"page of a container\n"
        finally:
            client.close()
        machine.send("signal", b"15")
        assert machine.end() == 0, machine.output(stream=2)
