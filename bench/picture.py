"""A run as a picture: bars for the p50, whiskers to the p95, one panel for one at a time and one for ten at once.

SVG by hand. It brings its own background, so that it is legible wherever it is shown, and follows the reader's colour
scheme. Times of one panel have one scale; the panels have different ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from bench.contestants import DOCKER
from bench.result import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.result import Result
    from bench.times import Times

__all__ = ["picture"]

WIDTH, MARGIN = 760, 24
LABELS, FIGURES = 90, 190
"""Room left of the bars for names, and right of them for numbers."""
BAR, ROW = 18, 30
HEAD, PANEL_HEAD, AXIS, FOOT = 64, 34, 34, 30
MOST_TICKS = 6

STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .panel { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .number { font-variant-numeric: tabular-nums }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .whisker { stroke: #1f2328; stroke-width: 1.5; fill: none }
  .docker { fill: #8c959f }
  .machine { fill: #2f7fd6 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .grid { stroke: #2a313c }
    .whisker { stroke: #f0f6fc }
    .docker { fill: #6e7681 }
    .machine { fill: #4493f8 }
  }
"""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a time is between the labels and the figures: ticks are `step` apart, the last one at the end."""

    step: float
    most: float

    def x(self, seconds: float) -> float:
        """In pixels."""
        return round(MARGIN + LABELS + seconds / self.most * (WIDTH - 2 * MARGIN - LABELS - FIGURES), 1)

    def ticks(self) -> list[float]:
        """All, from 0."""
        return [round(number * self.step, 6) for number in range(round(self.most / self.step) + 1)]


def picture(result: Result) -> str:
    """The whole document."""
    noise = ", all cores kept busy" if result.busy else ""
    panels = [
        (f"one at a time{noise}", result.alone),
        (f"{AT_ONCE} at once{noise}", result.together),
    ]
    y, body = HEAD, ""
    for title, times in panels:
        if times:
            drawn, y = panel(title, times, top=y)
            body += drawn
    height = y + FOOT
    title = f"{result.image}: from the request to the first byte of its page"
    host = result.host
    where = (
        f"{result.date[:10]}, {host.cores} cores of {host.cpu}, QEMU {host.qemu} with {host.accelerator.upper()}, "
        f"guest kernel {host.guest_kernel}"
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>
{label(MARGIN, 34, title, kind="title")}
{label(MARGIN, 54, "Seconds, less is better. Bars end at the median (p50), whiskers at the p95.", kind="small")}
{body}{label(MARGIN, height - 14, where, kind="small")}
</svg>
"""


def panel(title: str, times: Mapping[str, Times], *, top: int) -> tuple[str, int]:
    """A panel whose upper edge is at `top`, and where its lower one is."""
    scale = scale_to(max(kind.p95 for kind in times.values()))
    rows = top + PANEL_HEAD
    bottom = rows + ROW * len(times)
    lines = [label(MARGIN, top + 22, title, kind="panel")]
    for tick in scale.ticks():
        x = scale.x(tick)
        lines.append(f'<line class="grid" x1="{x}" y1="{rows - 4}" x2="{x}" y2="{bottom}"/>')
        lines.append(label(x, bottom + 15, f"{tick:g} s", kind="small number", anchor="middle"))
    for number, (name, kind) in enumerate(times.items()):
        lines += row(name, kind, against=times[DOCKER].p50, y=rows + ROW * number, scale=scale)
    return "\n".join(lines) + "\n", bottom + AXIS


def row(name: str, kind: Times, *, against: float, y: int, scale: Scale) -> list[str]:
    """A bar with its whisker, and its numbers beside it."""
    base, upper, lower = y + BAR / 2, y + 4, y + BAR - 4
    start, end, far = scale.x(0), scale.x(kind.p50), scale.x(kind.p95)
    who, width = "docker" if name == DOCKER else "machine", max(1.0, round(end - start, 1))
    figures = f"{kind.p50:.2f} s"
    if name != DOCKER:
        figures += f" · {kind.p50 / against:.2f} x docker run"
    return [
        label(start - 10, y + 14, name, anchor="end"),
        f'<rect class="{who}" x="{start}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
        f'<path class="whisker" d="M{end} {base}H{far}M{far} {upper}V{lower}"/>',
        label(WIDTH - MARGIN, y + 14, figures, kind="number", anchor="end"),
    ]


def scale_to(seconds: float) -> Scale:
    """Round ticks, few, up to this at least."""
    magnitude = 10.0 ** math.floor(math.log10(seconds))
    steps = (magnitude * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5))
    step = next(step for step in steps if seconds / step <= MOST_TICKS)
    return Scale(step=step, most=step * math.ceil(seconds / step))


def label(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
