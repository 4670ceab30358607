"""What benchmarks measure: a whole system, started for the occasion and called through REST, and docker beside it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_SECONDS = 360.0
# A benchmark that asks a hundred times at once must not wait for its own connections.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)


class Api:
    """A running system's REST API, as one user."""

    def __init__(self, url: str, *, token: str = "") -> None:
        self._url = url
        self._token = token
        self._client = httpx.Client(base_url=f"{url}/api/v1/", timeout=TIMEOUT_SECONDS, limits=LIMITS)
        if token:
            self.authorize(token)

    def authorize(self, token: str) -> None:
        """Sends this token from here on."""
        self._token = token
        self._client.headers["authorization"] = f"Bearer {token}"

    def uhm(self, *arguments: str) -> None:
        """Runs the command line as this user. Raises CalledProcessError."""
        environment = os.environ | {"UHM_URL": self._url, "UHM_TOKEN": self._token}
        argv = [str(Path(sys.executable).with_name("uhm")), *arguments]
        subprocess.run(argv, check=True, env=environment, capture_output=True)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Posts JSON and answers JSON."""
        answer: dict[str, Any] = checked(self._client.post(path, json=body)).json()
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """Gets JSON."""
        answer: dict[str, Any] = checked(self._client.get(path)).json()
        return answer

    def delete(self, path: str) -> None:
        """Deletes."""
        checked(self._client.delete(path))

    @contextmanager
    def download(self, path: str, body: dict[str, Any]) -> Iterator[httpx.Response]:
        """Posts JSON and answers a response whose body is for the block to read."""
        with self._client.stream("POST", path, json=body) as answer:
            if not answer.is_success:
                answer.read()
            yield checked(answer)

    def machines(self) -> list[dict[str, Any]]:
        """All of this user's machines, ended ones included."""
        answer: dict[str, Any] = checked(self._client.get("machines?page_size=1000&all=true")).json()
        return list(answer.get("machines", []))

    def first_output(self, machine_id: str) -> bool:
        """Follows a machine's output until something comes; answers whether it did before the machine ended."""
        with self._client.stream("GET", f"machines/{machine_id}/logs?follow=true") as log:
            return any(json.loads(line)["result"].get("data") for line in log.iter_lines())

    def make_image(self, reference: str) -> dict[str, Any]:
        """Has an image made, and watches it until it is ready; answers it."""
        image_id = self.post("images", {"image": reference})["id"]
        image: dict[str, Any] = {}
        with self._client.stream("GET", f"images/{image_id}:watch") as events:
            for line in events.iter_lines():
                image = json.loads(line)["result"].get("image", image)
        assert image["status"] == "ready", image.get("reason")
        return image

    def close(self) -> None:
        """Closes connections."""
        self._client.close()


def checked(answer: httpx.Response) -> httpx.Response:
    """An answer that is no error."""
    assert answer.is_success, answer.text
    return answer


@contextmanager
def own_system(state_dir: Path, mirror: str, *, engine: str = "") -> Iterator[Api]:
    """A system in a directory of its own, with a user; `engine` is the Docker Engine that it builds with, if any."""
    rest, grpc = free_port(), free_port()
    uhm = [sys.executable, "-m", "uhm"]
    where = ["--state-dir", str(state_dir)]
    up = [*uhm, "up", *where, "--rest-port", str(rest), "--grpc-port", str(grpc), "--detach"]
    environment = os.environ | {"UHM_REGISTRY_MIRRORS": f"docker.io={mirror}", "UHM_DOCKER_HOST": engine}
    up += [] if engine else ["--no-docker"]
    subprocess.run(up, check=True, env=environment, stdout=subprocess.DEVNULL)
    try:
        api = Api(f"http://127.0.0.1:{rest}")
        user = {"username": "bench", "password": secrets.token_urlsafe(16)}
        api.post("user/create", user)
        api.authorize(api.post("token/issue", user)["access_token"])
        yield api
    finally:
        subprocess.run([*uhm, "down", *where], check=True, stdout=subprocess.DEVNULL)


def docker(engine: str, *arguments: str) -> str:
    """Runs docker's command line and answers what it says."""
    argv = ["docker", "--host", engine, *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


_handed_out: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody uses and that was not answered before, also to other threads."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
            if port not in _handed_out:
                _handed_out.add(port)
                return port
