"""All that one run has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.targets import judge

if TYPE_CHECKING:
    from bench.crowd import Crowd
    from bench.host import Host
    from bench.memory import Memory
    from bench.targets import Target
    from bench.times import Times

__all__ = ["AT_ONCE", "Result"]

AT_ONCE = 10


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was not measured is empty. Times are by contestant, memory by kind of start."""

    date: str
    host: Host
    image: str
    busy: bool
    load_in_pauses: float
    """How busy the cores were before each turn, from 0 to 1; the median."""
    failure: str = ""
    """What ended the run early."""
    alone: dict[str, Times] = field(default_factory=dict)
    hello: dict[str, Times] = field(default_factory=dict)
    together: dict[str, Times] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    crowd: Crowd | None = None

    @property
    def targets(self) -> list[Target]:
        """Judged."""
        return judge(self)

    @property
    def passed(self) -> bool:
        """Whether all was measured, and all targets are met."""
        return not self.failure and all(target.met for target in self.targets)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        targets = [asdict(target) | {"met": target.met} for target in self.targets]
        return asdict(self) | {"targets": targets, "passed": self.passed}
