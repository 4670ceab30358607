"""How an image says that its service works: what the builder reads, events carry, and machines are watched by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Healthcheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """docker's image specification, config.Healthcheck, with docker's defaults filled in already."""

    command: tuple[str, ...]
    """What to execute: the shell of a shell command is its first word."""
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    retries: int

    @classmethod
    def of(cls, record: dict[str, Any] | None) -> Self | None:
        """From what `dataclasses.asdict` and JSON made of it; None where there was none."""
        return cls(**record | {"command": tuple(record["command"])}) if record else None
