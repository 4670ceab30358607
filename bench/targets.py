"""What is aimed at, and whether it was met. What was not measured is not judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.contestants import DOCKER

if TYPE_CHECKING:
    from bench.result import Result

__all__ = ["Target", "judge"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure that may be `most` at most; `aim` is what it would better be, 0 where that is the same."""

    name: str
    figure: float
    most: float
    unit: str = ""
    aim: float = 0.0

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.figure <= self.most


def judge(result: Result) -> list[Target]:
    """All targets of what was measured. Busy cores have none but that every start comes to its page."""
    times = (*result.alone.values(), *result.hello.values(), *result.together.values())
    targets = [Target(name="starts that never came to their page", figure=sum(kind.never for kind in times), most=0)]
    if result.busy:
        return targets
    return [*targets, *_alone(result), *_hello(result), *_crowd(result)]


def _alone(result: Result) -> list[Target]:
    """The p95 of `ready` is judged against docker's p95; against docker's p50 it is in the table for comparison."""
    if not result.alone:
        return []
    docker, cold = result.alone[DOCKER], result.alone["cold"]
    template, ready = result.alone["template"], result.alone["ready"]
    targets = [
        Target(name="ready p50 / docker run p50", figure=ratio(ready.p50, docker.p50), most=0.65, aim=0.4, unit="x"),
        Target(name="ready p95 / docker run p95", figure=ratio(ready.p95, docker.p95), most=1.0, unit="x"),
        Target(name="template p50 / cold p50", figure=ratio(template.p50, cold.p50), most=0.6, aim=0.45, unit="x"),
    ]
    if result.host.tuned_kernel:
        targets.append(Target(name="cold p50, tuned kernel", figure=cold.p50, most=1.3, unit="s"))
    return targets


def _hello(result: Result) -> list[Target]:
    if not result.hello:
        return []
    return [Target(name="hello by template p50", figure=result.hello["template"].p50, most=0.3, unit="s")]


def _crowd(result: Result) -> list[Target]:
    if result.crowd is None:
        return []
    crowd, left = result.crowd, result.crowd.left
    count = len(crowd.times.seconds) + crowd.times.never
    return [
        Target(name=f"of {count} at once, that do not answer", figure=count - crowd.still_answering, most=0),
        Target(name=f"of {count} at once, the last", figure=crowd.last_seconds, most=20, unit="s"),
        Target(name=f"of {count} at once, PSS of each", figure=crowd.memory.mean_mib, most=45, unit="MiB"),
        Target(name=f"of {count} at once, left after deletion", figure=left.excess, most=0),
    ]


def ratio(figure: float, peer: float) -> float:
    """A figure against its peer."""
    return round(figure / peer, 3)
