"""What images take up, as tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from uhm.render.tables import columns
from uhm.render.units import age, short_id, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["counted", "quota_line", "shares_table", "usage_table"]


def usage_table(usage: dict[str, Any]) -> str:
    """The table of `uhm df`. A layer that several images have is counted once."""
    rows = [
        (
            "Your images",
            str(usage.get("images", 0)),
            size(usage.get("layer_bytes")),
            size(usage.get("unshared_bytes")),
            "",
        ),
        ("Your builds", str(usage.get("building", 0)), "", "", ""),
        ("Whole store", "", size(usage.get("store_bytes")), "", size(usage.get("reclaimable_bytes"))),
    ]
    return columns(("TYPE", "TOTAL", "SIZE", "ONLY YOURS", "RECLAIMABLE"), rows)


def counted(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def quota_line(usage: dict[str, Any]) -> str:
    """What of the quota is used; empty where there is none."""
    quota = usage.get("quota", {})
    images = usage.get("images", 0) + usage.get("building", 0)
    parts = [
        f"{images} of {quota['images']} images" if quota.get("images") else "",
        f"{size(usage.get('layer_bytes'))} of {size(quota['bytes'])}" if int(quota.get("bytes", 0)) else "",
        f"{usage.get('building', 0)} of {quota['builds']} builds at once" if quota.get("builds") else "",
    ]
    used = ", ".join(part for part in parts if part)
    return f"You have {used}." if used else ""


def shares_table(images: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm df -v`: of each image, what others of these have too, and what goes when it goes."""
    users = Counter(diff_id for image in images for diff_id in _layers(image))
    rows = []
    for image in images:
        layers = _layers(image)
        alone = sum(number for diff_id, number in layers.items() if users[diff_id] == 1)
        rows.append(
            (
                image.get("reference", ""),
                short_id(image["id"]),
                f"{age(image.get('create_time'), now=now)} ago",
                str(len(image.get("layers", []))),
                size(sum(layers.values())),
                size(sum(layers.values()) - alone),
                size(alone),
            )
        )
    return columns(("REFERENCE", "IMAGE ID", "CREATED", "LAYERS", "SIZE", "SHARED SIZE", "UNIQUE SIZE"), rows)


def _layers(image: dict[str, Any]) -> dict[str, int]:
    return {layer["diff_id"]: int(layer.get("size_bytes", 0)) for layer in image.get("layers", [])}
