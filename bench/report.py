"""A run's table, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contestants import DOCKER
from bench.memory import IDLE_SECONDS
from bench.result import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.crowd import Crowd
    from bench.memory import Memory
    from bench.result import Result
    from bench.targets import Target
    from bench.times import Times

__all__ = ["table"]


def table(result: Result) -> str:
    """All of it."""
    noise = ", all cores kept busy" if result.busy else ""
    lines = [f"{result.date[:10]}: {result.host}"]
    lines += _times(f"{result.image}, request to first byte, one at a time{noise}", result.alone)
    lines += _times(f"{result.image}, request to first byte, {AT_ONCE} at once{noise}", result.together)
    lines += _times(f"hello, request to first line of output{noise}", result.hello)
    lines += _phases(result.alone | {f"hello {name}": kind for name, kind in result.hello.items()})
    lines += _memory(result.memory)
    lines += _crowd(result.crowd)
    lines += ["", f"before each turn the cores were {result.load_in_pauses:.0%} busy (median)"]
    lines += ["", "targets", *map(_target, result.targets)]
    if result.failure:
        lines += ["", f"THE RUN ENDED EARLY: {result.failure}"]
    return "\n".join(lines)


def _times(title: str, times: Mapping[str, Times]) -> list[str]:
    """One line each, with what it is against docker's p50."""
    if not times:
        return []
    docker = times[DOCKER]
    count = len(docker.seconds) + docker.never
    lines = ["", f"{title}, {count} starts each"]
    for name, kind in times.items():
        against = f"{kind.p50 / docker.p50:6.2f} x and {kind.p95 / docker.p50:6.2f} x docker's p50"
        never = f"   {kind.never} NEVER" if kind.never else ""
        lines.append(f"  {name:<10}  p50 {kind.p50:7.3f} s   p95 {kind.p95:7.3f} s   {against}{never}")
    return lines


def _phases(times: Mapping[str, Times]) -> list[str]:
    """What the machines say of themselves."""
    lines = [
        f"  {name:<14}  " + "   ".join(f"{phase} {taken:.0f}" for phase, taken in kind.phases_ms.items())
        for name, kind in times.items()
        if kind.phases_ms
    ]
    return ["", "medians of the phases, ms, as the machines say", *lines] if lines else []


def _memory(memory: Mapping[str, Memory]) -> list[str]:
    if not memory:
        return []
    count = next(iter(memory.values())).machines
    return [
        "",
        f"memory (PSS) of an idle machine, {count} of a kind, {IDLE_SECONDS:g} s after their page",
        *(f"  {name:<10}  mean {of.mean_mib:6.1f} MiB   most {of.max_mib:6.1f} MiB" for name, of in memory.items()),
    ]


def _crowd(crowd: Crowd | None) -> list[str]:
    if crowd is None:
        return []
    count, memory, left = len(crowd.times.seconds) + crowd.times.never, crowd.memory, crowd.left
    last = f"the last first byte after {crowd.last_seconds:.3f} s, p50 {crowd.times.p50:.3f} s"
    each = f"PSS {memory.total_mib:.0f} MiB, {memory.mean_mib} MiB each, {memory.max_mib} MiB at most"
    spares = f"of spares {left.directories} directories and {left.processes} processes ({left.strays} strays)"
    return [
        "",
        f"{count} machines at once from one snapshot",
        f"  {last}; {crowd.still_answering} answer after a rest",
        f"  {each}; the daemon that exports their disk has {crowd.exports_mib} MiB",
        f"  stopped and deleted in {crowd.removed_seconds:.3f} s; left: {left.machines} machines, and {spares}",
    ]


def _target(target: Target) -> str:
    verdict = "met" if target.met else "MISSED"
    aim = f", better {target.aim:g}" if target.aim else ""
    figure = f"{target.figure:.4g} {target.unit}".rstrip()
    return f"  {verdict:<6}  {target.name:<40} {figure:>9}   at most {target.most:g}{aim}"
