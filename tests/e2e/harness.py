"""A running system as its users see it: the command line, REST through curl, and gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

SPARES = 4
"""Machines that wait to be used, at most, have directories without being anybody's (UHM_SPARE_MACHINES)."""
UHM = Path(sys.executable).parent / "uhm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an HTTP call answered; `json` is None where the body is not JSON."""

    status: int
    text: str

    @property
    def json(self):
        return json.loads(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A running system and the ways to talk to it."""

    state_dir: Path
    rest_port: int
    grpc_port: int
    env: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def up(self) -> None:
        ports = ("--rest-port", str(self.rest_port), "--grpc-port", str(self.grpc_port))
        self.uhm("up", "--state-dir", str(self.state_dir), *ports, "--detach", timeout=180)

    def down(self) -> None:
        self.uhm("down", "--state-dir", str(self.state_dir), timeout=120)

    def uhm(self, *arguments: str, token: str = "", check: bool = True, timeout: float = 120, url: str = ""):
        """Runs the command line; `check` wants exit code 0."""
        env = self.env | {"UHM_URL": url or self.url} | ({"UHM_TOKEN": token} if token else {})
        done = subprocess.run([UHM, *arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            pytest.fail(f"uhm {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def curl(
        self, path: str, *arguments: str, token: str = "", data: str | None = None, timeout: float = 120
    ) -> Answer:
        """Calls REST with curl, which posts where there is data."""
        argv = ["curl", "-sS", "-w", "\n%{http_code}", *arguments]
        argv += ["-H", f"Authorization: Bearer {token}"] if token else []
        argv += ["-d", data] if data is not None else []
        done = subprocess.run([*argv, self.url + path], capture_output=True, text=True, timeout=timeout, check=True)
        text, _, status = done.stdout.rpartition("\n")
        return Answer(status=int(status), text=text)

    def user(self, name: str) -> str:
        """Registers a user, whose password is `test`, where it is not there yet; answers an access token."""
        credentials = json.dumps({"username": name, "password": "test"})
        self.curl("/api/v1/user/create", data=credentials)
        return self.curl("/api/v1/token/issue", data=credentials).json["access_token"]

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")

    def image(self, image_id: str, *, token: str, timeout: float = 120) -> dict:
        """Waits until a build has ended, and answers the image."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            image = self.curl(f"/api/v1/images/{image_id}", token=token).json
            if image["status"] != "building":
                return image
            time.sleep(0.1)
        pytest.fail(f"the build did not end: {image}")

    def service_pid(self, name: str) -> int:
        """The process id of one of the system's programs, by what supervisord says."""
        listing = json.loads(self.uhm("doctor", "--state-dir", str(self.state_dir), "--json", check=False).stdout)
        return next(part["pid"] for part in listing["system"]["programs"] if part["name"] == name)


def fetch(url: str, *, timeout: float = 60) -> str:
    """The page at an address, asked for again until it answers. Each try is short: a lost SYN costs its whole time."""
    deadline = time.monotonic() + timeout
    while True:
        done = subprocess.run(
            ["curl", "-sS", "-f", "-m", "2", url], capture_output=True, text=True, timeout=10, check=False
        )
        if done.returncode == 0:
            return done.stdout
        if time.monotonic() > deadline:
            pytest.fail(f"{url} does not answer: {done.stderr}")
        time.sleep(0.05)
