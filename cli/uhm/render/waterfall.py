"""Phases drawn below each other, each where it was in time.

resolve   ██▎                                12 ms
convert     ███████████████████████         640 ms
compose                            ██       140 ms
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm.render.units import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["waterfall"]

WIDTH = 40
FULL = "█"
# A bar ends in eighths of a cell.
PARTS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def waterfall(phases: Sequence[dict[str, Any]], *, width: int = WIDTH) -> list[str]:
    """A line per phase of `name`, `start_ms`, `duration_ms`, and one for the whole; nothing for no phases."""
    if not phases:
        return []
    spans = [(phase["name"], phase.get("start_ms", 0.0), phase.get("duration_ms", 0.0)) for phase in phases]
    whole = max(start + duration for _, start, duration in spans)
    scale = width / whole if whole else 0
    names = max(len("total"), *(len(name) for name, _, _ in spans))
    lines = [
        f"  {name:<{names}}  {_bar(start * scale, duration * scale, width=width)}  {milliseconds(duration):>8}"
        for name, start, duration in spans
    ]
    return [*lines, f"  {'total':<{names}}  {' ' * width}  {milliseconds(whole):>8}"]


def _bar(start: float, length: float, *, width: int) -> str:
    """Begins at a whole cell, and is at least an eighth of one, so that every phase shows."""
    first = min(int(start), width - 1)
    eighths = max(1, min(round(length * 8), (width - first) * 8))
    return f"{' ' * first}{FULL * (eighths // 8)}{PARTS[eighths % 8]}".ljust(width)
