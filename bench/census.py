"""What a system holds at a moment: that which grows where a start leaves something behind."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from bench.processes import open_files, processes_below, rss_mib
from uhm.system.layout import Layout
from uhm.system.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Census", "growth", "settled_census"]

SERVICE: Final = "machines"
ALLOWED_GROWTH: Final = 0.2
"""Of the service's memory."""
ALLOWED_FILES: Final = 8
"""Of the service's open files: connections to other parts come and go."""
_SETTLES_WITHIN_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Census:
    """Counts; `open_files` and `memory_mib` are the machines service's, `processes` all that the system has."""

    processes: int
    machine_files: int
    snapshot_files: int
    leases: int
    open_files: int
    memory_mib: float


def settled_census(state_dir: Path) -> Census:
    """The counts, once they stay the same for a while: a spare is made after each start. At last as they are."""
    deadline = time.monotonic() + _SETTLES_WITHIN_SECONDS
    before: Census | None = None
    stayed = 0
    while True:
        now = _census(state_dir)
        stayed = stayed + 1 if before is not None and _counts(before) == _counts(now) else 0
        if stayed == 3 or time.monotonic() > deadline:
            return now
        before = now
        time.sleep(_LOOK_SECONDS)


def growth(before: Census, after: Census) -> list[str]:
    """What has grown more than it may, as sentences' parts."""
    allowed = dict.fromkeys(_counts(before), 0) | {"open_files": ALLOWED_FILES}
    grown = [
        f"{name} grew from {_counts(before)[name]} to {_counts(after)[name]}"
        for name, slack in allowed.items()
        if _counts(after)[name] > _counts(before)[name] + slack
    ]
    if after.memory_mib > before.memory_mib * (1 + ALLOWED_GROWTH):
        grown.append(f"memory_mib grew from {before.memory_mib} to {after.memory_mib}")
    return grown


def _counts(census: Census) -> dict[str, int]:
    counts = asdict(census)
    del counts["memory_mib"]
    return counts


def _census(state_dir: Path) -> Census:
    pid = _service_pid(state_dir)
    return Census(
        processes=len(processes_below(state_dir)),
        machine_files=_files(state_dir / "machines"),
        snapshot_files=_files(state_dir / "snapshots"),
        leases=len(list((state_dir / "artifacts" / "disks").glob("*/leases/*"))),
        open_files=open_files(pid),
        memory_mib=round(rss_mib(pid), 1),
    )


def _files(directory: Path) -> int:
    """All below it, directories included."""
    return sum(1 for _ in directory.rglob("*"))


def _service_pid(state_dir: Path) -> int:
    states = Supervisor(Layout.of(state_dir).supervisor_socket).states() or []
    return next(state.pid for state in states if state.name == SERVICE)
