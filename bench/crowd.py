"""Many machines at once from one snapshot: until the last one serves, what they take, and whether all is gone after."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.memory import IDLE_SECONDS, Memory
from bench.page import first_byte
from bench.processes import processes_below, pss_mib
from bench.rounds import launch
from bench.times import Times

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.contestants import Machines, Start
    from bench.system import Api

__all__ = ["Crowd", "Left", "measure_crowd"]

SPARES = int(os.environ.get("UHM_SPARE_MACHINES") or 4)
GONE_WITHIN_SECONDS = 10.0
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Left:
    """What there is of a system's machines: records, and directories and QEMU processes, which spares have too."""

    machines: int
    directories: int
    processes: int
    strays: int
    """QEMU processes whose directory is gone."""

    @property
    def excess(self) -> int:
        """How much more there is than spares."""
        return self.machines + self.strays + max(0, self.directories - SPARES) + max(0, self.processes - SPARES)


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """`last_seconds`: from the first request to the last one's first byte. `still_answering`: after a rest."""

    times: Times
    last_seconds: float
    still_answering: int
    memory: Memory
    exports_mib: float
    removed_seconds: float
    left: Left


def measure_crowd(machines: Machines, state_dir: Path | None, *, count: int) -> Crowd:
    """So many at once. What was started is stopped and deleted, whatever happens. Only of a system of our own."""
    assert state_dir is not None
    began = time.monotonic()
    starts = launch(machines, count)
    last_seconds = time.monotonic() - began
    sys.stderr.write(f"     {count} machines in {last_seconds:.3f} s\n")
    try:
        time.sleep(IDLE_SECONDS)
        running = [start for start in starts if start.seconds is not None]
        memory = Memory.of(running)
        exports = sum(pss_mib(process.pid) for process in processes_below(state_dir / "exports"))
        answering = _answering(running)
    finally:
        began = time.monotonic()
        _stop_and_delete(machines.api, starts)
    removed_seconds = time.monotonic() - began
    return Crowd(
        times=Times.of(starts),
        last_seconds=round(last_seconds, 3),
        still_answering=answering,
        memory=memory,
        exports_mib=round(exports, 1),
        removed_seconds=round(removed_seconds, 3),
        left=_left_in_the_end(machines.api, state_dir),
    )


def _answering(starts: Sequence[Start]) -> int:
    with ThreadPoolExecutor(len(starts)) as pool:
        return sum(pool.map(first_byte, [start.machine["ports"][0]["host_port"] for start in starts]))


def _stop_and_delete(api: Api, starts: Sequence[Start]) -> None:
    """All at the same moment."""

    def end(start: Start) -> None:
        api.post(f"machines/{start.handle}:stop", {})
        api.delete(f"machines/{start.handle}")

    with ThreadPoolExecutor(len(starts)) as pool:
        list(pool.map(end, starts))


def _left_in_the_end(api: Api, state_dir: Path) -> Left:
    """Looks until nothing is left, for a while: a spare may just be exchanged for another."""
    deadline = time.monotonic() + GONE_WITHIN_SECONDS
    while (left := _left(api, state_dir)).excess and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return left


def _left(api: Api, state_dir: Path) -> Left:
    directory = state_dir / "machines"
    recorded = {machine["id"] for machine in api.machines()}
    there = {path.name for path in directory.iterdir() if path.is_dir()}
    qemus = [process for process in processes_below(directory) if process.program.startswith("qemu")]
    homes = {str(directory.resolve() / name) for name in there}
    return Left(
        machines=len(recorded),
        directories=len(there - recorded),
        processes=len(qemus),
        strays=sum(process.directory not in homes for process in qemus),
    )
