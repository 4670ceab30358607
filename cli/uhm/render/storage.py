"""Storage locations and what lies there, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm.render.tables import columns
from uhm.render.units import ago, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["publications_table", "published_table", "storage_table", "where"]

AMAZON = "https://s3.amazonaws.com"


def storage_table(locations: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm storage ls`."""
    rows = [
        (location["name"], _kind(location), where(location), ago(location.get("create_time"), now=now))
        for location in locations
    ]
    return columns(("NAME", "KIND", "WHERE", "ADDED"), rows)


def published_table(images: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm storage images`."""
    rows = [
        (
            image.get("reference", ""),
            size(_bytes(image, "disk")),
            size(_bytes(image, "layer")),
            ago(image.get("publish_time"), now=now),
        )
        for image in images
    ]
    return columns(("REFERENCE", "DISK", "LAYERS", "PUBLISHED"), rows)


def publications_table(publications: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm storage publications`."""
    rows = [
        (
            publication["id"],
            publication.get("reference", ""),
            publication.get("storage", ""),
            publication.get("status", ""),
            f"{size(publication.get('done_bytes'))} of {size(publication.get('total_bytes'))}",
            ago(publication.get("create_time"), now=now),
        )
        for publication in publications
    ]
    return columns(("PUBLICATION", "IMAGE", "STORAGE", "STATUS", "THERE", "CREATED"), rows)


def where(location: dict[str, Any]) -> str:
    """The place of a location in a line."""
    match _kind(location):
        case "s3":
            s3 = location["s3"]
            path = f"{s3.get('bucket', '')}/{s3.get('prefix', '')}".rstrip("/")
            return f"{s3.get('endpoint') or AMAZON}/{path}"
        case "registry":
            return str(location["registry"].get("repository", ""))
        case "webdav":
            return str(location["webdav"].get("url", ""))
    return str(location.get("directory", {}).get("path", ""))


def _kind(location: dict[str, Any]) -> str:
    return next((kind for kind in ("s3", "registry", "webdav") if kind in location), "dir")


def _bytes(image: dict[str, Any], kind: str) -> int:
    objects = image.get("objects", [])
    return sum(int(each.get("size_bytes", 0)) for each in objects if each.get("kind") == kind)
