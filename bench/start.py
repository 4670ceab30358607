"""How long a machine takes from the request to its first HTTP byte, against `docker run` of the same image.

A machine is asked for through REST, as the command line does; docker through its own. Both publish a port of loopback
and serve the same page; runs alternate, so that both meet the same noise. The system and the engine are started for
the occasion, with images out of a registry on loopback; `--url` measures a system that runs already (a token in
UHM_TOKEN), which must hold or reach the image.

`--busy` keeps every core busy meanwhile, and requires that every single start comes to its page.

    python -m bench.start [--runs N] [--image nginx] [--busy] [--url URL] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.system import Api, docker, free_port, own_system
from tools.local_registry import ensure_images, registry
from uhm_common.dockerd import PrivateDockerd

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET_SECONDS = 4.5
PAGE_PORT = 80
GIVE_UP_SECONDS = 120.0
# A forwarded port takes connections before the guest does, and what is sent then may be lost: ask again, soon.
ANSWER_SECONDS = (0.1, 0.2, 0.4, 0.8)
RETRY_SECONDS = 0.005
ENDED = {"exited", "failed"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Seconds; `phases_ms` are medians of what the machines say of themselves."""

    runs: int
    reached: int
    busy: bool
    start_kind: str
    accelerator: str
    machine_p50: float
    machine_p95: float
    docker_p50: float
    docker_p95: float
    ratio: float
    target_seconds: float
    phases_ms: dict[str, float]


def main() -> None:
    """Prints a table or one JSON document; ends with 1 where a start never came to its page, or a quiet one late."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--image", default="nginx", help="one that serves a page on port 80")
    parser.add_argument("--busy", action="store_true", help="keep every core busy meanwhile")
    parser.add_argument("--url", help="a system that runs already; default: one is started")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = prepare_and_measure(arguments)
    sys.stdout.write((json.dumps(asdict(result), indent=2) if arguments.json else table(result)) + "\n")
    late = not result.busy and result.machine_p50 > TARGET_SECONDS
    sys.exit(1 if late or result.reached < result.runs else 0)


def prepare_and_measure(arguments: argparse.Namespace) -> Result:
    """Brings up what is measured, and takes down what it brought up."""
    ensure_images()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uhm-bench-")))
        mirror = stack.enter_context(registry())
        engine = PrivateDockerd(directory / "engine", registry_mirror=mirror, bridge=True)
        stack.callback(engine.remove)
        engine.start()
        if arguments.url:
            api = Api(arguments.url, token=os.environ["UHM_TOKEN"])
        else:
            api = stack.enter_context(own_system(directory / "state", mirror))
        stack.callback(api.close)
        docker(engine.host, "pull", "--quiet", arguments.image)
        api.make_image(arguments.image)
        machine_run(api, arguments.image)  # the first finds out about the host
        if arguments.busy:
            stack.enter_context(busy_cores())
        return measure(api, engine.host, image=arguments.image, runs=arguments.runs, busy=arguments.busy)


def measure(api: Api, engine: str, *, image: str, runs: int, busy: bool) -> Result:
    """Alternates."""
    machines: list[float] = []
    containers: list[float] = []
    last: dict[str, Any] = {}
    phases: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(1, runs + 1):
        containers.append(container_run(engine, image))
        seconds, last = machine_run(api, image)
        if seconds is not None:
            machines.append(seconds)
        for phase in last.get("phases", []):
            phases[phase["name"]].append(phase.get("duration_ms", 0.0))
        shown = "never" if seconds is None else f"{seconds:.3f} s"
        sys.stderr.write(f"{number:3}: machine {shown}, docker {containers[-1]:.3f} s\n")
    machine_p50, docker_p50 = statistics.median(machines or [GIVE_UP_SECONDS]), statistics.median(containers)
    return Result(
        runs=runs,
        reached=len(machines),
        busy=busy,
        start_kind=last.get("start_kind", ""),
        accelerator=last.get("accelerator", ""),
        machine_p50=round(machine_p50, 3),
        machine_p95=round(percentile(machines or [GIVE_UP_SECONDS], 95), 3),
        docker_p50=round(docker_p50, 3),
        docker_p95=round(percentile(containers, 95), 3),
        ratio=round(machine_p50 / docker_p50, 2),
        target_seconds=TARGET_SECONDS,
        phases_ms={name: round(statistics.median(taken), 1) for name, taken in phases.items()},
    )


def machine_run(api: Api, image: str) -> tuple[float | None, dict[str, Any]]:
    """From the request to the first byte, None where it never came; and the machine as it was then."""
    began = time.monotonic()
    machine = api.post(
        "machines", {"image": image, "ports": [{"guest_port": PAGE_PORT}], "wait": "listening", "auto_remove": False}
    )
    try:
        if machine["status"] in ENDED:
            sys.stderr.write(f"     {machine.get('reason')}\n")
            return None, machine
        reached = first_byte(machine["ports"][0]["host_port"])
        return (time.monotonic() - began if reached else None), machine
    finally:
        api.delete(f"machines/{machine['id']}?force=true")


def container_run(engine: str, image: str) -> float:
    """From `docker run` to the first byte."""
    port = free_port()
    began = time.monotonic()
    container = docker(engine, "run", "--detach", "--publish", f"127.0.0.1:{port}:{PAGE_PORT}", image)
    try:
        assert first_byte(port), "docker's container never served its page"
        return time.monotonic() - began
    finally:
        docker(engine, "rm", "--force", container)


def first_byte(port: int) -> bool:
    """Asks for the page until a byte of it comes; answers whether one came."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    attempt = 0
    while time.monotonic() < deadline:
        patience = ANSWER_SECONDS[min(attempt, len(ANSWER_SECONDS) - 1)]
        attempt += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            if sock.recv(1):
                return True
        time.sleep(RETRY_SECONDS)
    return False


@contextmanager
def busy_cores() -> Iterator[None]:
    """One loop for every core."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=loop_for_ever, daemon=True) for _ in range(os.cpu_count() or 1)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def loop_for_ever() -> None:
    """Takes all that a core gives."""
    while True:
        pass


def percentile(values: list[float], percent: int) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * len(ordered)))]


def table(result: Result) -> str:
    """For people."""
    met = "met" if result.machine_p50 <= result.target_seconds else "missed"
    noise = ", busy" if result.busy else ""
    reached = f"{result.reached} of {result.runs} reached their page"
    machine = f"p50 {result.machine_p50:7.3f} s   p95 {result.machine_p95:7.3f} s"
    container = f"p50 {result.docker_p50:7.3f} s   p95 {result.docker_p95:7.3f} s"
    return f"""\
{result.start_kind} start with {result.accelerator}{noise}: {reached}
  machine   {machine}   target {result.target_seconds} s: {met}
  docker    {container}   machine / docker: {result.ratio}
  {"   ".join(f"{name} {taken:.0f} ms" for name, taken in result.phases_ms.items())}"""


if __name__ == "__main__":
    main()
