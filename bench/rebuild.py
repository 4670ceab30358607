"""How much longer a changed file takes to a bootable image than to a container image.

A Dockerfile on nginx copies a directory of a few files in its top layer. Each round changes one of them and has the
image made again, once by `docker build` with BuildKit and once by `uhm build`, which ends when a disk is ready; with
one engine, and each with a change of its own, so that nothing is found in the engine's cache. Rounds alternate who
comes first. What `uhm build` takes more is the whole way around the engine: the command line's start, the context, the
request, the event, taking the new layer out, and the disk.

    python -m bench.rebuild [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.system import own_system
from tools.local_registry import ensure_images, registry
from uhm_builder.sources.buildkit import find_program
from uhm_common.dockerd import PrivateDockerd

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.system import Api

TARGET_SECONDS = 0.5
FILES = 20
DOCKERFILE = "FROM nginx\nCOPY site /usr/share/nginx/html\n"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians in seconds, of the rounds' differences too."""

    rounds: int
    docker_seconds: float
    uhm_seconds: float
    difference_seconds: float
    largest_difference_seconds: float
    stages_ms: dict[str, float]

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.difference_seconds <= TARGET_SECONDS


def main() -> None:
    """Prints a table or one JSON document; ends with 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.rebuild", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ensure_images()
    with (
        tempfile.TemporaryDirectory(prefix="uhm-bench-") as directory,
        registry() as mirror,
        PrivateDockerd(Path(directory) / "engine", registry_mirror=mirror) as engine,
        own_system(Path(directory) / "state", mirror, engine=engine.host) as api,
    ):
        result = measure(api, engine.host, Path(directory) / "context", rounds=arguments.rounds)
    sys.stdout.write((json.dumps(asdict(result), indent=2) if arguments.json else table(result)) + "\n")
    sys.exit(0 if result.met else 1)


def measure(api: Api, engine: str, context: Path, *, rounds: int) -> Result:
    """Alternates; before it counts, both have built once."""
    (context / "site").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE)
    for number in range(FILES):
        (context / "site" / f"{number}.html").write_text(f"<p>{number}\n" * 200)
    builders: list[Callable[[Path], object]] = [
        lambda path: docker_build(engine, path),
        lambda path: uhm_build(api, path),
    ]
    for build in builders:
        changed(build, context)
    taken: list[list[float]] = [[], []]
    stages = []
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append(changed(builders[which], context))
        image = api.get("images/bench")
        stages.append({stage["name"]: stage["duration_ms"] for stage in image["stages"]})
        docker, uhm = taken[0][-1], taken[1][-1]
        sys.stderr.write(f"{number + 1:3}: docker build {docker:.3f} s, uhm build {uhm:.3f} s, {uhm - docker:+.3f} s\n")
    differences = [uhm - docker for docker, uhm in zip(*taken, strict=True)]
    return Result(
        rounds=rounds,
        docker_seconds=round(statistics.median(taken[0]), 3),
        uhm_seconds=round(statistics.median(taken[1]), 3),
        difference_seconds=round(statistics.median(differences), 3),
        largest_difference_seconds=round(max(differences), 3),
        stages_ms={name: round(statistics.median(each[name] for each in stages), 1) for name in stages[0]},
    )


def changed(build: Callable[[Path], object], context: Path) -> float:
    """Changes a file; answers how long the build then takes."""
    (context / "site" / "0.html").write_text(f"<p>{time.time_ns()}\n")
    began = time.monotonic()
    build(context)
    return time.monotonic() - began


def docker_build(engine: str, context: Path) -> None:
    """The peer: the very program that a worker uses."""
    environment = os.environ | {"DOCKER_HOST": engine, "DOCKER_BUILDKIT": "1"}
    argv = [find_program(), "build", "--tag", "bench", str(context)]
    subprocess.run(argv, check=True, env=environment, capture_output=True)


def uhm_build(api: Api, context: Path) -> None:
    """Ours, as a user calls it."""
    api.uhm("build", "--tag", "bench", str(context))


def table(result: Result) -> str:
    """For people."""
    stages = "   ".join(f"{name} {taken:.0f} ms" for name, taken in result.stages_ms.items())
    met = "met" if result.met else "missed"
    return f"""\
one of {FILES} files changed in the top layer, on nginx; medians of {result.rounds} rounds
  docker build, to a container image   {result.docker_seconds:7.3f} s
  uhm build, to a bootable disk        {result.uhm_seconds:7.3f} s
  difference                           {result.difference_seconds:7.3f} s   (target {TARGET_SECONDS} s: {met}; \
largest {result.largest_difference_seconds} s)
  {stages}"""


if __name__ == "__main__":
    main()
