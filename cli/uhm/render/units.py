"""Quantities as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["age", "ago", "milliseconds", "moment", "short_id", "size"]

STEPS = ((60, "second"), (60, "minute"), (24, "hour"), (7, "day"), (52, "week"))
UNITS = ("B", "kB", "MB", "GB", "TB")


def size(number: int | str | None) -> str:
    """Bytes in powers of 1000, as docker shows them: `182 MB`."""
    value = float(number or 0)
    step = 0
    while value >= 999.5 and step < len(UNITS) - 1:
        value /= 1000
        step += 1
    return f"{value:.3g} {UNITS[step]}" if value < 1000 else f"{value:.0f} {UNITS[step]}"


def milliseconds(value: float) -> str:
    """`8.4 ms`, `143 ms`, `1.21 s`."""
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def moment(text: str | None) -> datetime | None:
    """A protobuf timestamp (RFC 3339, up to nanoseconds), or None for none."""
    if not text:
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}").replace(tzinfo=UTC)


def age(text: str | None, *, now: datetime) -> str:
    """How long ago a timestamp was: `3 minutes`."""
    then = moment(text)
    if then is None:
        return ""
    value = max(0.0, (now - then).total_seconds())
    name = "year"
    for length, unit in STEPS:
        if value < length:
            name = unit
            break
        value /= length
    number = int(value)
    return f"{number} {name}{'' if number == 1 else 's'}"


def ago(text: str | None, *, now: datetime) -> str:
    """`3 minutes ago`; empty for no timestamp."""
    past = age(text, now=now)
    return f"{past} ago" if past else ""


def short_id(text: str) -> str:
    """The first 12 characters of an id or a digest."""
    return text.removeprefix("sha256:")[:12]
