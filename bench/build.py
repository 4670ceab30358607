"""How long an image takes from the request until it is ready, against `docker pull` of the same image.

Both get the two-layer nginx image from the same registry on loopback: an engine that holds nothing, and a builder whose
store has no layer. Runs alternate, so that both meet the same noise. Then the same image again, with its layers in the
store; and what a second image on the same base adds. The base is made once per installation and is shown apart.

    python -m bench.build [--runs N] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from tests.integration.builder_system import System, builder_system, nats_server
from tools.local_registry import ensure_images, registry
from uhm_common.dockerd import PrivateDockerd
from uhmalguhm.builder.v1 import image_pb2

IMAGE, BASE_IMAGE = "nginx", "debian:bookworm"
COLD_TARGET_RATIO = 0.4
WARM_TARGET_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians, and the best where noise matters, in seconds and bytes."""

    runs: int
    docker_pull_seconds: float
    cold_seconds: float
    cold_ratio: float
    docker_pull_best_seconds: float
    cold_best_seconds: float
    warm_seconds: float
    base_seconds: float
    image_bytes: int
    first_image_adds_bytes: int
    second_image_adds_bytes: int
    cold_stages_ms: dict[str, float]


def main() -> None:
    """Prints a table, or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m bench.build", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ensure_images()
    with tempfile.TemporaryDirectory(prefix="uhm-bench-") as directory:
        result = asyncio.run(measure(Path(directory), runs=arguments.runs))
    print(json.dumps(asdict(result), indent=2) if arguments.json else table(result))


async def measure(directory: Path, *, runs: int) -> Result:
    """Runs everything in a directory of its own."""
    with registry() as url, nats_server(directory / "nats") as nats_url:
        mirrors = {"UHM_REGISTRY_MIRRORS": f"docker.io={url}"}
        async with builder_system(directory, nats_url, **mirrors) as system:
            base_seconds = await make_base(system)
            pulls, colds, warms, stages = [], [], [], []
            for _ in range(runs):
                pulls.append(await asyncio.to_thread(docker_pull, directory / "engine", url))
                seconds, image = await build(system, IMAGE)
                colds.append(seconds)
                stages.append({stage.name: stage.duration_ms for stage in image.stages})
                warms.append((await build(system, IMAGE))[0])
                await system.delete(image.id)
            sizes = await added_bytes(system)
    cold, pull = statistics.median(colds), statistics.median(pulls)
    return Result(
        runs=runs,
        docker_pull_seconds=round(pull, 3),
        cold_seconds=round(cold, 3),
        cold_ratio=round(cold / pull, 3),
        docker_pull_best_seconds=round(min(pulls), 3),
        cold_best_seconds=round(min(colds), 3),
        warm_seconds=round(statistics.median(warms), 3),
        base_seconds=round(base_seconds, 1),
        image_bytes=image.size_bytes,
        first_image_adds_bytes=sizes[0],
        second_image_adds_bytes=sizes[1],
        cold_stages_ms={name: round(statistics.median(run[name] for run in stages), 1) for name in stages[0]},
    )


async def make_base(system: System) -> float:
    """Starts the worker and has the smallest image made, which waits for the base."""
    started = time.monotonic()
    await system.start_worker()
    await build(system, "hello")
    return time.monotonic() - started


async def build(system: System, reference: str) -> tuple[float, image_pb2.Image]:
    """From the request to ready, as a client that watches sees it."""
    started = time.monotonic()
    image = await system.ended(await system.create(reference))
    seconds = time.monotonic() - started
    assert image.status == "ready", image.reason
    return seconds, image


def docker_pull(directory: Path, url: str) -> float:
    """`docker pull` into an engine that holds nothing."""
    engine = PrivateDockerd(directory, registry_mirror=url)
    try:
        engine.start()
        started = time.monotonic()
        subprocess.run(["docker", "--host", engine.host, "pull", "--quiet", IMAGE], check=True, capture_output=True)
        return time.monotonic() - started
    finally:
        engine.remove()


async def added_bytes(system: System) -> list[int]:
    """What an image and a second one on the same base add to the store."""
    sizes = [stored(system.artifacts)]
    for reference in (BASE_IMAGE, IMAGE):
        await build(system, reference)
        sizes.append(stored(system.artifacts))
    return [after - before for before, after in pairwise(sizes)]


def stored(directory: Path) -> int:
    """Bytes that a directory takes on its file system."""
    return sum(file.stat().st_blocks * 512 for file in directory.rglob("*"))


def table(result: Result) -> str:
    """For people."""
    pull_best, cold_best = result.docker_pull_best_seconds, result.cold_best_seconds
    stages = ", ".join(f"{name} {ms:.0f} ms" for name, ms in result.cold_stages_ms.items())
    lines = [
        f"{'':<38}{'median of ' + str(result.runs):>14}   target",
        f"{'docker pull, empty engine':<38}{result.docker_pull_seconds:>12.2f} s   best {pull_best:.2f} s",
        f"{'image ready, empty store':<38}{result.cold_seconds:>12.2f} s   best {cold_best:.2f} s",
        f"{'  ratio':<38}{result.cold_ratio:>14.2f}   <= {COLD_TARGET_RATIO}",
        f"{'  stages':<38}  {stages}",
        f"{'image ready, layers in the store':<38}{result.warm_seconds:>12.3f} s   <= {WARM_TARGET_SECONDS} s",
        f"{'base, once per installation':<38}{result.base_seconds:>12.1f} s",
        f"{'first image adds':<38}{result.first_image_adds_bytes / 1e6:>11.1f} MB",
        f"{'second image on the same base adds':<38}{result.second_image_adds_bytes / 1e6:>11.1f} MB",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
