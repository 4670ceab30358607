"""What is compared: docker's containers, and machines by each kind of start.

A machine is asked for through REST, as the command line does; docker through its own command line. Both publish a port
of loopback and serve the same page. `hello` serves none: there the first line of its output counts, as docker's command
line prints it, or as the API answers it to who follows the log.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from bench.page import PAGE_PORT, first_byte
from bench.system import docker, free_port

if TYPE_CHECKING:
    from bench.system import Api

__all__ = ["DOCKER", "KINDS", "Containers", "Contestant", "Machines", "Start", "WrongKind", "wait_until_possible"]

DOCKER = "docker run"
KINDS = ("cold", "template", "ready")
POSSIBLE_WITHIN_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_ENDED = {"exited", "failed"}


class WrongKind(Exception):
    """A machine was not started as it was asked to be: what follows would measure something else."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start, and what to remove it by."""

    seconds: float | None
    """From the request to the first byte; None where none came."""
    handle: str
    machine: dict[str, Any] = field(default_factory=dict)
    """As the API answered it; empty for docker."""


class Contestant(Protocol):
    """Who starts something and removes it; both are called from many threads."""

    @property
    def name(self) -> str:
        """As the table calls it."""

    def start(self) -> Start:
        """Starts one and waits for its first byte."""

    def remove(self, start: Start) -> None:
        """Removes what was started."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Machines of an image by one kind of start. `serves`: it has a page; else its output counts."""

    api: Api
    image: str
    kind: str
    serves: bool = True

    @property
    def name(self) -> str:
        """The kind."""
        return self.kind

    def request(self) -> dict[str, Any]:
        """The body of the request."""
        body: dict[str, Any] = {"image": self.image, "start": self.kind, "wait": "running", "auto_remove": False}
        return body | {"ports": [{"guest_port": PAGE_PORT}], "wait": "listening"} if self.serves else body

    def start(self) -> Start:
        """Raises WrongKind, with nothing left of the machine."""
        began = time.monotonic()
        machine = self.api.post("machines", self.request())
        started = self._answers(machine)
        seconds = time.monotonic() - began
        start = Start(seconds=seconds if started else None, handle=machine["id"], machine=machine)
        if machine["start_kind"] != self.kind:
            self.remove(start)
            reason = machine.get("start_reason") or machine.get("reason") or "It does not say why."
            raise WrongKind(f"{self.image} was to start {self.kind} and started {machine['start_kind']}. {reason}")
        return start

    def remove(self, start: Start) -> None:
        """By force."""
        self.api.delete(f"machines/{start.handle}?force=true")

    def _answers(self, machine: dict[str, Any]) -> bool:
        if not self.serves:
            return self.api.first_output(machine["id"])
        if machine["status"] in _ENDED:
            sys.stderr.write(f"     {machine.get('reason')}\n")
            return False
        return first_byte(machine["ports"][0]["host_port"])


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Containers of an image in a Docker Engine. `serves` as in Machines."""

    engine: str
    image: str
    serves: bool = True
    name: str = DOCKER

    def start(self) -> Start:
        """`docker run`."""
        return self._serving() if self.serves else self._printing()

    def remove(self, start: Start) -> None:
        """By force."""
        docker(self.engine, "rm", "--force", start.handle)

    def _serving(self) -> Start:
        port = free_port()
        began = time.monotonic()
        container = docker(self.engine, "run", "--detach", "--publish", f"127.0.0.1:{port}:{PAGE_PORT}", self.image)
        answers = first_byte(port)
        return Start(seconds=time.monotonic() - began if answers else None, handle=container)

    def _printing(self) -> Start:
        name = f"bench-{secrets.token_hex(6)}"
        argv = ["docker", "--host", self.engine, "run", "--name", name, self.image]
        began = time.monotonic()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
            assert process.stdout is not None
            printed = process.stdout.read(1)
            seconds = time.monotonic() - began
        return Start(seconds=seconds if printed else None, handle=name)


def wait_until_possible(machines: Machines) -> dict[str, Any]:
    """Waits until machines really start in this way: snapshots are made in the background. Answers such a machine.

    Raises WrongKind with the reason, where it does not come to that in time.
    """
    deadline = time.monotonic() + POSSIBLE_WITHIN_SECONDS
    while True:
        try:
            start = machines.start()
        except WrongKind:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            machines.remove(start)
            return start.machine
