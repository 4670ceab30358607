"""What a start is going to be: decided before a machine is recorded, because a spare machine brings its id along."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uhm_machines.disks import ImageDisk
    from uhm_machines.machine import StartKind
    from uhm_machines.shape import Shape
    from uhm_machines.snapshots.store import Snapshot
    from uhm_machines.starts.spares import Spare

__all__ = ["Plan"]


@dataclass(slots=True, kw_only=True)
class Plan:
    """How a machine is to be started. Fallbacks change it."""

    kind: StartKind
    reasons: list[str]
    """Why no faster kind."""
    disk: ImageDisk
    shape: Shape
    snapshot: Snapshot | None = None
    """What to restore; None for a cold start."""
    spare: Spare | None = None
    """A machine that waits for it."""
    machine_id: str = field(init=False)
    """Of a new machine: the spare's, or a new one."""

    def __post_init__(self) -> None:
        self.machine_id = self.spare.machine_id if self.spare else uuid.uuid4().hex

    @property
    def reason(self) -> str:
        """Why no faster kind, as sentences."""
        return " ".join(f"{reason[:1].upper()}{reason[1:]}." for reason in self.reasons)
