"""`uhm up` and `uhm down`: everything answers, everything comes back, nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.servers import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

UHM = Path(sys.executable).parent / "uhm"
PARTS = ("nats", "auth", "builder", "worker", "machines", "gateway")


def processes_of(state_dir: Path) -> list[str]:
    """Command lines of processes that the state directory is named to, in their arguments or their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            if os.fsencode(state_dir) in told and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class System:
    """A state directory and its ports."""

    state_dir: Path
    rest_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def up_argv(self, *arguments: str) -> list[str]:
        ports = ["--rest-port", str(self.rest_port), "--grpc-port", str(self.grpc_port)]
        return [str(UHM), "up", "--state-dir", str(self.state_dir), *ports, *arguments]

    def up(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(self.up_argv("--detach", *arguments), **environment)

    def down(self) -> subprocess.CompletedProcess[str]:
        return run([str(UHM), "down", "--state-dir", str(self.state_dir)])

    def doctor(self) -> dict:
        return json.loads(run([str(UHM), "doctor", "--state-dir", str(self.state_dir), "--json"]).stdout)

    def program(self, name: str) -> dict:
        return next(program for program in self.doctor()["system"]["programs"] if program["name"] == name)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def run(argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("UHM_")}
    return subprocess.run(argv, env=own | environment, capture_output=True, text=True, timeout=200, check=False)


def wait_until(condition, *, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def new_system(tmp_path_factory):
    """Makes systems that are not started; at the end each is down and has left no process."""
    made = []

    def make() -> System:
        made.append(System(tmp_path_factory.mktemp("up"), *free_ports(2)))
        return made[-1]

    yield make
    for system in made:
        assert system.down().returncode == 0
        assert processes_of(system.state_dir) == []


@pytest.fixture(scope="module")
def running(new_system) -> System:
    """A system that runs, without a Docker Engine; tests leave it running."""
    system = new_system()
    done = system.up("--no-docker")
    assert done.returncode == 0, done.stderr
    return system


def test_everything_answers(running):
    programs = running.doctor()["system"]["programs"]
    assert [program["name"] for program in programs] == list(PARTS)
    assert all(program["answers"] and program["state"] == "running" for program in programs)
    assert running.answers()


def test_a_second_up_says_what_runs(running):
    done = running.up("--no-docker", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["already_running"] is True
    other = run([str(UHM), "up", "--state-dir", str(running.state_dir), "--detach", "--rest-port", "1234"])
    assert other.returncode == 1
    assert str(running.rest_port) in other.stderr


def test_secrets_are_private(running):
    for name in ("nats.conf", "nats.token", "system.json", "supervisord.conf"):
        assert (running.state_dir / "run" / name).stat().st_mode & 0o077 == 0
    token = (running.state_dir / "run" / "nats.token").read_text()
    assert all(token not in line for line in processes_of(running.state_dir))


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_comes_back(running, name):
    killed = running.program(name)["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: (now := running.program(name))["pid"] not in (0, killed) and now["answers"])
    wait_until(running.answers)


def test_two_systems_do_not_disturb_each_other(running, new_system):
    other = new_system()
    assert other.up("--no-docker").returncode == 0
    credentials = {"username": "me", "password": "secret"}
    assert httpx.post(f"{other.url}/api/v1/user/create", json=credentials).status_code == 200
    assert httpx.post(f"{running.url}/api/v1/user/create", json=credentials).status_code == 200
    assert other.down().returncode == 0
    assert processes_of(other.state_dir) == []
    assert running.answers()


def test_a_port_in_use_is_told(running, new_system):
    other = new_system()
    taken = System(other.state_dir, running.rest_port, other.grpc_port)
    done = taken.up("--no-docker")
    assert done.returncode == 1
    assert f"Port {running.rest_port} is in use" in done.stderr
    assert "--rest-port" in done.stderr
    assert processes_of(other.state_dir) == []


def test_an_internal_port_that_was_taken_is_changed(new_system):
    system = new_system()
    assert system.up("--no-docker").returncode == 0
    assert system.down().returncode == 0
    kept = json.loads((system.state_dir / "run" / "ports.json").read_text())
    with socket.create_server(("127.0.0.1", kept["auth"])):
        assert system.up("--no-docker").returncode == 0
    assert json.loads((system.state_dir / "run" / "ports.json").read_text()) != kept
    assert system.down().returncode == 0


def test_a_part_that_cannot_start_is_told_and_nothing_is_left(new_system):
    system = new_system()
    done = system.up("--no-docker", UHM_BCRYPT_COST="99")
    assert done.returncode == 1
    assert "auth did not come up" in done.stderr
    assert "UHM_BCRYPT_COST" in done.stderr
    assert processes_of(system.state_dir) == []


def test_what_a_killed_supervisord_leaves(new_system):
    system = new_system()
    assert system.up("--no-docker").returncode == 0
    kill_supervisord(system)
    assert processes_of(system.state_dir)
    assert system.doctor()["system"]["left_behind"] is True
    again = system.up("--no-docker")
    assert again.returncode == 0, again.stderr
    assert system.answers()
    kill_supervisord(system)
    assert system.down().returncode == 0
    assert processes_of(system.state_dir) == []
    assert system.down().stdout.startswith("Nothing runs")


def kill_supervisord(system: System) -> None:
    pid = int((system.state_dir / "run" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not system.doctor()["system"]["running"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_everything(new_system, number):
    system = new_system()
    with subprocess.Popen(system.up_argv("--no-docker"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert b"Ready" in child.stdout.readline()
        child.send_signal(number)
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert processes_of(system.state_dir) == []


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("dockerd") is None, reason="needs root and dockerd")
def test_an_engine_of_our_own_comes_and_goes(new_system):
    if Path("/var/run/docker.sock").exists() or Path("/run/systemd/system").exists():
        pytest.skip("an engine of the machine's own would be used")
    system = new_system()
    done = system.up()
    assert done.returncode == 0, done.stderr
    host = json.loads(system.up("--json").stdout)["docker_host"]
    version = run(["docker", "version", "--format", "{{.Server.Version}}"], DOCKER_HOST=host)
    assert version.returncode == 0, version.stderr
    assert system.down().returncode == 0
    assert not Path(host.removeprefix("unix://")).parent.exists()
    assert processes_of(system.state_dir) == []
