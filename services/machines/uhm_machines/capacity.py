"""How many machines may run at once, and how much memory they may have together."""

from __future__ import annotations

from dataclasses import dataclass, field

from uhm_machines.errors import CapacityExhausted

__all__ = ["Capacity"]


@dataclass(slots=True)
class Capacity:
    """Counts what live machines take."""

    machines: int
    """How many may run."""
    memory_mib: int
    """How much memory they may have together."""
    _taken: dict[str, int] = field(default_factory=dict)

    def take(self, machine_id: str, *, memory_mib: int) -> None:
        """Counts a machine. Raises CapacityExhausted where it does not fit."""
        if len(self._taken) >= self.machines:
            raise CapacityExhausted(
                f"{len(self._taken)} machines run, which is as many as may.",
                hint="Stop one, or raise UHM_MAX_MACHINES.",
            )
        used = sum(self._taken.values())
        if used + memory_mib > self.memory_mib:
            raise CapacityExhausted(
                f"{memory_mib} MiB do not fit: running machines have {used} of {self.memory_mib} MiB.",
                hint="Stop one, ask for less, or raise UHM_MAX_MEMORY_MIB.",
            )
        self.note(machine_id, memory_mib=memory_mib)

    def note(self, machine_id: str, *, memory_mib: int) -> None:
        """Counts a machine that runs already."""
        self._taken[machine_id] = memory_mib

    def release(self, machine_id: str) -> None:
        """Gives back what a machine had."""
        self._taken.pop(machine_id, None)
