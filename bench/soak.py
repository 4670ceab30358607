"""Very many starts of each kind in a row while every core is kept busy: all come to their page, and nothing is left.

One at a time: asked for through REST with `wait` = listening, its page fetched, deleted by force. What the system holds
is counted after the first 20 of a kind and after the last: processes, files of machines and snapshots, leases, and the
machines service's open files must be no more, its memory at most a fifth.

    python -m bench.soak [--starts 200] [--minutes 45] [--json FILE]

Ends with 1 where a start never came, or was of another kind than asked for, where something grew, or time ran out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.busy import busy_cores
from bench.census import growth, settled_census
from bench.contestants import KINDS, Machines, WrongKind, wait_until_possible
from bench.host import Host
from bench.stage import end_on_sigterm, only_system
from bench.times import Times

if TYPE_CHECKING:
    from bench.census import Census
    from bench.contestants import Start

DEFAULT_JSON = Path(__file__).parents[1] / "build" / "bench" / "soak.json"
IMAGE = "nginx"
FIRST = 20
MOST_FAILURES = 5
"""Of a kind, before it is given up."""


@dataclass(kw_only=True)
class Kind:
    """One kind of start; `problems` are sentences."""

    name: str
    starts: list[Start] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    before: Census | None = None
    after: Census | None = None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.name,
            "starts": len(self.starts),
            "times": asdict(Times.of(self.starts)),
            "problems": self.problems,
            "before": asdict(self.before) if self.before else None,
            "after": asdict(self.after) if self.after else None,
        }


def main() -> None:
    """Prints a table, writes JSON; ends with 1 where there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=200, help="of each kind; default 200")
    parser.add_argument("--minutes", type=float, default=45, help="for all of it; default 45")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, metavar="FILE", help="default build/bench/soak.json")
    arguments = parser.parse_args()
    end_on_sigterm()
    deadline = time.monotonic() + arguments.minutes * 60
    try:
        with only_system(IMAGE) as (api, state_dir):
            machines = [Machines(api=api, image=IMAGE, kind=kind) for kind in KINDS]
            possible = [wait_until_possible(kind) for kind in machines]
            with busy_cores():
                kinds = [soak(kind, state_dir, starts=arguments.starts, deadline=deadline) for kind in machines]
    except WrongKind as error:
        sys.exit(f"bench.soak: {error}")
    host = Host.of(possible[0])
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": asdict(host),
        "kinds": [kind.document() for kind in kinds],
        "passed": not any(kind.problems for kind in kinds),
    }
    sys.stdout.write("\n".join([str(host), *(line for kind in kinds for line in table(kind))]) + "\n")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    sys.exit(0 if document["passed"] else 1)


def soak(machines: Machines, state_dir: Path, *, starts: int, deadline: float) -> Kind:
    """All starts of one kind."""
    kind = Kind(name=machines.kind)
    for number in range(1, starts + 1):
        if time.monotonic() > deadline or len(kind.problems) >= MOST_FAILURES:
            kind.problems.append(f"given up after {number - 1} of {starts} starts")
            break
        one(machines, kind, number=number)
        if number == min(FIRST, max(1, starts // 2)):
            kind.before = settled_census(state_dir)
        if number % FIRST == 0:
            times = Times.of(kind.starts[-FIRST:])
            sys.stderr.write(f"{kind.name:<10} {number:4}: p50 {times.p50:.3f} s, {len(kind.problems)} problems\n")
    kind.after = settled_census(state_dir)
    if kind.before is not None:
        kind.problems += growth(kind.before, kind.after)
    return kind


def one(machines: Machines, kind: Kind, *, number: int) -> None:
    """One start, noted."""
    try:
        start = machines.start()
        machines.remove(start)
    except (WrongKind, AssertionError, httpx.HTTPError) as error:
        kind.problems.append(f"start {number}: {error}")
        sys.stderr.write(f"{kind.name:<10} {kind.problems[-1]}\n")
        return
    kind.starts.append(start)
    if start.seconds is None:
        kind.problems.append(f"start {number} never came to its page: {start.machine.get('reason') or 'no reason'}")


def table(kind: Kind) -> list[str]:
    """For people."""
    times = Times.of(kind.starts)
    came = f"{len(times.seconds)} came to their page" + (f", {times.never} never" if times.never else "")
    lines = ["", f"{kind.name}: {came}, p50 {times.p50:.3f} s, p95 {times.p95:.3f} s"]
    if kind.before and kind.after:
        after = asdict(kind.after)
        lines += [f"  {name:<16} {count:>8} -> {after[name]}" for name, count in asdict(kind.before).items()]
    return lines + [f"  PROBLEM: {problem}" for problem in kind.problems]


if __name__ == "__main__":
    main()
