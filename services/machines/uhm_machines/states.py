"""What a machine's status can be, and what follows what, as one table."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENDED", "LIVE", "TRANSITIONS", "Status", "may_follow"]


class Status(StrEnum):
    """As in `Machine.status` of the API."""

    CREATED = "created"
    """It has a record, and is getting a disk."""
    STARTING = "starting"
    """Its process is being started, or the guest is booting."""
    RUNNING = "running"
    """The workload was executed."""
    STOPPING = "stopping"
    """It was asked to end."""
    EXITED = "exited"
    """The workload has ended, or the machine was ended on request."""
    FAILED = "failed"
    """It ended otherwise: `reason` says how."""


TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.CREATED: frozenset({Status.STARTING, Status.FAILED}),
    Status.STARTING: frozenset({Status.RUNNING, Status.STOPPING, Status.EXITED, Status.FAILED}),
    Status.RUNNING: frozenset({Status.STOPPING, Status.EXITED, Status.FAILED}),
    Status.STOPPING: frozenset({Status.EXITED, Status.FAILED}),
    Status.EXITED: frozenset({Status.STARTING}),
    Status.FAILED: frozenset({Status.STARTING}),
}

LIVE: Final = frozenset({Status.STARTING, Status.RUNNING, Status.STOPPING})
"""There is a process, or should be."""
ENDED: Final = frozenset({Status.EXITED, Status.FAILED})


def may_follow(status: Status, *, on: Status) -> bool:
    """Whether a machine that is `on` may become `status`; staying is always allowed."""
    return status is on or status in TRANSITIONS[on]
