"""A Docker Engine of our own, beside any other on the machine, that leaves nothing behind.

It is for machines where no engine runs: images and logs are below one directory, which may be kept between runs;
sockets and state are below `/run`, because a Unix socket's path may have 108 bytes at most. The host's configuration of
an engine is not read. No firewall rule is written and no address forwarded: containers use the host's network, and with
`bridge=True` also a bridge of the engine's own, where published ports (`docker run -p`) go through docker-proxy, which
they do on loopback with any engine.

    with PrivateDockerd(directory) as engine:
        docker.DockerClient(base_url=engine.host)

A supervisor can run it too: `prepare()`, then `argv()` in the foreground, and `stop()` in the end. Any process may call
that, also after a crash: what belongs to an engine is known by a name made from its directory's path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from uhm_common.errors import FailedPrecondition, Unavailable
from uhm_common.leftovers import end_cgroup, end_processes, processes_of, unmount_below
from uhm_common.process import run, tail

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DockerdFailed", "PrivateDockerd", "engine_answers"]

RUN = Path("/run")
PROGRAMS = ("dockerd", "containerd")
POLL_SECONDS = 0.05
CONTAINERS_STOP_SECONDS = 5
STOP_SECONDS = 20.0


class DockerdFailed(Unavailable):
    """The engine did not come up."""


class PrivateDockerd:
    """One engine, identified by the directory that holds its images; also a context manager that runs it."""

    def __init__(
        self, directory: Path, *, registry_mirror: str = "", bridge: bool = False, ready_seconds: float = 60.0
    ) -> None:
        """Nothing is started or written yet. `registry_mirror` is the address of a registry asked before Docker Hub."""
        self.directory = directory.resolve()
        self.registry_mirror = registry_mirror
        self.bridge = bridge
        self.ready_seconds = ready_seconds
        self._digest = hashlib.sha256(os.fsencode(self.directory)).digest()
        self._name = f"uhm-dockerd-{self._digest.hex()[:12]}"
        self._run_dir = RUN / self._name
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where the engine's API answers."""
        return self._run_dir / "docker.sock"

    @property
    def host(self) -> str:
        """The same as what `DOCKER_HOST` and the Docker SDK's `base_url` want."""
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        """What the engine writes, of the last start."""
        return self.directory / "dockerd.log"

    @property
    def bridge_name(self) -> str:
        """The network interface made where a bridge is wanted."""
        return f"uhm{self._digest.hex()[:8]}"

    def argv(self) -> list[str]:
        """The command that runs the engine in the foreground, after `prepare()`."""
        return [
            "dockerd",
            f"--config-file={self._run_dir / 'daemon.json'}",
            f"--host={self.host}",
            "--group=root",
            f"--pidfile={self._run_dir / 'dockerd.pid'}",
            f"--data-root={self.directory / 'data'}",
            f"--exec-root={self._run_dir / 'exec'}",
            f"--containerd-namespace={self._name}",
            f"--containerd-plugins-namespace={self._name}-plugins",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{self._name}",
            f"--shutdown-timeout={CONTAINERS_STOP_SECONDS}",
            f"--bridge={self.bridge_name if self.bridge else 'none'}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            *([f"--registry-mirror={self.registry_mirror}"] if self.registry_mirror else []),
        ]

    def running(self) -> bool:
        """Whether the engine's processes exist, whoever started them."""
        return bool(processes_of(str(self._run_dir), programs=("dockerd",)))

    def prepare(self) -> None:
        """Clears what a crash has left, makes what the engine needs. Raises FailedPrecondition where it cannot run."""
        if os.geteuid() != 0:
            raise FailedPrecondition(
                "Starting a Docker Engine needs root.", hint="Be root, or let DOCKER_HOST name an engine that runs."
            )
        if shutil.which("dockerd") is None:
            raise FailedPrecondition("dockerd is not installed.", hint="`make setup` installs it.")
        if self.running():
            raise FailedPrecondition(
                f"A Docker Engine already runs on {self.directory}.", hint=f"It answers at {self.host}."
            )
        self._sweep()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._run_dir.mkdir(mode=0o700)
        (self._run_dir / "daemon.json").write_text("{}")
        if self.bridge:
            self._make_bridge()

    def wait_ready(self) -> None:
        """Waits until the API answers. Raises DockerdFailed with the end of the engine's log."""
        deadline = time.monotonic() + self.ready_seconds
        while not engine_answers(self.socket):
            if self._child is not None and self._child.poll() is not None:
                raise self._failure(f"The Docker Engine ended with exit code {self._child.returncode} while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"The Docker Engine did not answer within {self.ready_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def start(self) -> None:
        """Starts the engine and waits until it answers; where it does not, nothing is left."""
        self.prepare()
        try:
            with self.log.open("wb") as log:
                self._child = subprocess.Popen(
                    self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the engine and its containers; only the directory is left. Harmless where nothing runs."""
        end_processes(processes_of(str(self._run_dir), programs=("dockerd",)), grace=STOP_SECONDS)
        if self._child is not None:
            self._child.wait()
            self._child = None
        self._sweep()

    def remove(self) -> None:
        """Stops the engine and deletes its directory with all images."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _sweep(self) -> None:
        """Removes what an engine that has ended or was killed leaves outside its directory."""
        end_processes(processes_of(str(self._run_dir), programs=PROGRAMS), grace=2)
        end_cgroup(self._name)
        unmount_below(self.directory)
        unmount_below(self._run_dir)
        if Path("/sys/class/net", self.bridge_name).exists():
            run(["ip", "link", "delete", self.bridge_name], timeout=10)
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def _make_bridge(self) -> None:
        """A bridge with a private network of its own, so that two engines have different ones."""
        address = f"10.{200 + self._digest[0] % 50}.{self._digest[1]}.1/24"
        run(["ip", "link", "add", "name", self.bridge_name, "type", "bridge"], timeout=10)
        run(["ip", "address", "add", address, "dev", self.bridge_name], timeout=10)
        run(["ip", "link", "set", self.bridge_name, "up"], timeout=10)

    def _failure(self, sentence: str) -> DockerdFailed:
        """The error with the end of the log, read now because a later start overwrites it."""
        return DockerdFailed(f"{sentence}:\n{tail(self.log.read_bytes())}", hint=f"Its log is {self.log}.")


def engine_answers(path: Path) -> bool:
    """Whether a Docker Engine answers at a Unix socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False
