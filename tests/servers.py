"""Real servers for tests: PostgreSQL and NATS, each in a temporary directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

READY_SECONDS = 30


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(ready, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args[0]} did not come up:\n{log.read_text()}")
        time.sleep(0.05)


class Postgres:
    """A cluster of its own, which answers on a Unix socket only; it does not run as root, which it refuses to."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="uhm-postgres-"))
        self.account = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self.account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        cluster = self.directory / "cluster"
        self.call("initdb", "--username=uhm", "--auth=trust", "--encoding=UTF8", "--no-sync", f"--pgdata={cluster}")
        self.run()

    def run(self) -> None:
        """Starts what `start` has made, again after `halt`."""
        cluster = self.directory / "cluster"
        options = ["listen_addresses=", f"unix_socket_directories={self.directory}", "fsync=off", "max_connections=60"]
        argv = [str(self.programs / "postgres"), "-D", str(cluster), *(f"--{option}" for option in options)]
        log = self.directory / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                argv, stdout=output, stderr=output, cwd=self.directory, start_new_session=True, **self.account
            )
        wait_until(self.answers, self.process, log)

    def answers(self) -> bool:
        argv = [str(self.programs / "pg_isready"), "--quiet", f"--host={self.directory}"]
        return subprocess.run(argv, check=False).returncode == 0

    def call(self, program: str, *arguments: str) -> None:
        argv = [str(self.programs / program), *arguments]
        subprocess.run(argv, check=True, capture_output=True, cwd=self.directory, timeout=120, **self.account)

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.call("createdb", f"--host={self.directory}", "--username=uhm", name)
        return f"postgresql://uhm@/{name}?host={self.directory}"

    def halt(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # ends sessions, and then itself
            self.process.wait(READY_SECONDS)

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.directory)


class NatsServer:
    """The real server with JetStream, on a port that stays the same over restarts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.directory = Path(tempfile.mkdtemp(prefix="uhm-nats-"))
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        program = Path(sys.executable).parent / "nats-server"
        argv = [str(program), "--jetstream", "--addr", "127.0.0.1", "--port", str(self.port)]
        log = self.directory / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*argv, "--store_dir", str(self.directory)], stdout=output, stderr=output, start_new_session=True
            )
        wait_until(self.answers, self.process, log)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(READY_SECONDS)
            self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory)
