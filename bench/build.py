"""How long an image takes from the request until it is ready, against `docker pull` of the same image.

Both get the two-layer nginx image from the same registry on loopback: an engine that holds nothing, and a system whose
store has no layer. Runs alternate, so that both meet the same noise. Then the same image again, with its layers in the
store; and what a second image on the same base adds. The base is made once per installation and is shown apart.
Requests go through REST, and ready is what a client that watches sees. The worker's memory is its peak while layers are
converted.

    python -m bench.build [--runs N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import forget_peak, module_of, peak_mib, processes_below
from bench.system import docker, own_system
from tools.local_registry import ensure_images, registry
from uhm_common.dockerd import PrivateDockerd

if TYPE_CHECKING:
    from bench.system import Api

IMAGE, BASE_IMAGE, SMALL_IMAGE = "nginx", "debian:bookworm", "hello"
COLD_TARGET_RATIO = 0.25
WARM_TARGET_SECONDS = 0.3
WORKER_TARGET_MIB = 143  # 150 MB


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians in seconds, and bytes."""

    runs: int
    docker_pull_seconds: float
    cold_seconds: float
    cold_ratio: float
    warm_seconds: float
    base_seconds: float
    worker_peak_mib: float
    image_bytes: int
    first_image_adds_bytes: int
    second_image_adds_bytes: int
    cold_stages_ms: dict[str, float]

    @property
    def met(self) -> bool:
        """Whether all targets are met."""
        return (
            self.cold_ratio <= COLD_TARGET_RATIO
            and self.warm_seconds <= WARM_TARGET_SECONDS
            and self.worker_peak_mib <= WORKER_TARGET_MIB
        )


def main() -> None:
    """Prints a table or one JSON document; ends with 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.build", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ensure_images()
    with (
        tempfile.TemporaryDirectory(prefix="uhm-bench-") as directory,
        registry() as mirror,
        own_system(Path(directory) / "state", mirror) as api,
    ):
        result = measure(api, Path(directory), mirror=mirror, runs=arguments.runs)
    sys.stdout.write((json.dumps(asdict(result), indent=2) if arguments.json else table(result)) + "\n")
    sys.exit(0 if result.met else 1)


def measure(api: Api, directory: Path, *, mirror: str, runs: int) -> Result:
    """Alternates; the first image of all waits for the base."""
    pulls: list[float] = []
    colds: list[float] = []
    warms: list[float] = []
    stages: list[dict[str, float]] = []
    base_seconds, _ = build(api, SMALL_IMAGE)
    below = processes_below(directory / "state")
    worker = next(process.pid for process in below if module_of(process.pid) == "uhm_builder.worker")
    forget_peak(worker)
    for number in range(1, runs + 1):
        pulls.append(docker_pull(directory / "engine", mirror))
        seconds, image = build(api, IMAGE)
        colds.append(seconds)
        stages.append({stage["name"]: stage["duration_ms"] for stage in image["stages"]})
        warms.append(build(api, IMAGE)[0])
        api.delete(f"images/{image['id']}")
        api.post("/usage:collect", {})  # else its layers are kept for a while
        sys.stderr.write(f"{number:3}: docker pull {pulls[-1]:.3f} s, cold {seconds:.3f} s, warm {warms[-1]:.3f} s\n")
    peak = peak_mib(worker)
    first, second = added_bytes(api, directory / "state" / "artifacts" / "layers")
    cold, pull = statistics.median(colds), statistics.median(pulls)
    return Result(
        runs=runs,
        docker_pull_seconds=round(pull, 3),
        cold_seconds=round(cold, 3),
        cold_ratio=round(cold / pull, 3),
        warm_seconds=round(statistics.median(warms), 3),
        base_seconds=round(base_seconds, 1),
        worker_peak_mib=round(peak, 1),
        image_bytes=int(image["size_bytes"]),
        first_image_adds_bytes=first,
        second_image_adds_bytes=second,
        cold_stages_ms={name: round(statistics.median(run[name] for run in stages), 1) for name in stages[0]},
    )


def build(api: Api, reference: str) -> tuple[float, dict[str, Any]]:
    """From the request to ready, and the image."""
    began = time.monotonic()
    image = api.make_image(reference)
    return time.monotonic() - began, image


def docker_pull(directory: Path, mirror: str) -> float:
    """`docker pull` into an engine that holds nothing."""
    engine = PrivateDockerd(directory, registry_mirror=mirror)
    try:
        engine.start()
        began = time.monotonic()
        docker(engine.host, "pull", "--quiet", IMAGE)
        return time.monotonic() - began
    finally:
        engine.remove()


def added_bytes(api: Api, layers: Path) -> tuple[int, int]:
    """What an image, and a second one on the same base, add to the store."""
    sizes = [stored(layers)]
    for reference in (BASE_IMAGE, IMAGE):
        api.make_image(reference)
        sizes.append(stored(layers))
    return sizes[1] - sizes[0], sizes[2] - sizes[1]


def stored(layers: Path) -> int:
    """Bytes that layers take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in layers.glob("*.erofs"))


def judged(figure: str, target: float, *, met: bool) -> str:
    """A figure beside its target."""
    return f"{figure}  (target {target}: {'met' if met else 'missed'})".strip()


def table(result: Result) -> str:
    """For people."""
    cold = judged(f"{result.cold_ratio} x docker pull", COLD_TARGET_RATIO, met=result.cold_ratio <= COLD_TARGET_RATIO)
    warm = judged("", WARM_TARGET_SECONDS, met=result.warm_seconds <= WARM_TARGET_SECONDS)
    memory = judged("", WORKER_TARGET_MIB, met=result.worker_peak_mib <= WORKER_TARGET_MIB)
    stages = "   ".join(f"{name} {taken:.0f} ms" for name, taken in result.cold_stages_ms.items())
    first, second = result.first_image_adds_bytes / 1e6, result.second_image_adds_bytes / 1e6
    return f"""\
{IMAGE}, {result.image_bytes / 1e6:.0f} MB, from a registry on loopback, medians of {result.runs}
  docker pull, empty engine   {result.docker_pull_seconds:7.3f} s
  ready, empty store          {result.cold_seconds:7.3f} s   {cold}
  ready, known layers         {result.warm_seconds:7.3f} s   {warm}
  {stages}
  the worker's memory, at most{result.worker_peak_mib:7.1f} MiB  {memory}
  the first image of all, which waits for the base: {result.base_seconds} s
  {BASE_IMAGE} adds {first:.1f} MB to the store, {IMAGE} on it another {second:.1f} MB"""


if __name__ == "__main__":
    main()
