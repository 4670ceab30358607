"""Manifests: what a registry answers for a name. Reading them and choosing among platforms.

Specifications: OCI image specification 1.1 (manifest.md, image-index.md), docker image manifest version 2 schema 2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from uhm_builder.errors import UnsupportedImage

__all__ = ["ACCEPTED", "Descriptor", "Index", "Manifest", "choose", "parse_manifest"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A reference to content by its digest. `platform` is `os/architecture[/variant]`, in an index only."""

    media_type: str
    digest: str
    size: int
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image: its configuration and its layers, the bottom one first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The same image for several platforms."""

    manifests: tuple[Descriptor, ...]


def parse_manifest(document: bytes, *, content_type: str) -> Manifest | Index:
    """Read a manifest or an index; the document's own mediaType counts before the header. Raises UnsupportedImage."""
    try:
        record: dict[str, Any] = json.loads(document)
        media_type = record.get("mediaType") or content_type.partition(";")[0].strip()
        if media_type in (OCI_INDEX, DOCKER_LIST) or (media_type not in ACCEPTED and "manifests" in record):
            return Index(manifests=tuple(_descriptor(entry) for entry in record["manifests"]))
        if media_type not in ACCEPTED and "layers" not in record:
            raise UnsupportedImage(
                f"The registry answered a manifest of type {media_type!r}, which is not supported.",
                hint="Push the image again with a current docker or buildkit.",
            )
        manifest = Manifest(
            config=_descriptor(record["config"]), layers=tuple(_descriptor(entry) for entry in record["layers"])
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedImage("The registry answered something that is not an image manifest.") from error
    if manifest.config.media_type not in CONFIGS:
        raise UnsupportedImage(f"This is not a container image but {manifest.config.media_type or 'something else'}.")
    return manifest


def choose(index: Index, *, architecture: str) -> Descriptor:
    """The manifest for Linux on this architecture, of no variant if there is one. Raises UnsupportedImage."""
    wanted = f"linux/{architecture}"
    fitting = [
        entry for entry in index.manifests if entry.platform == wanted or entry.platform.startswith(wanted + "/")
    ]
    if not fitting:
        offered = sorted({entry.platform for entry in index.manifests if not entry.platform.startswith("unknown")})
        raise UnsupportedImage(
            f"The image is not made for {wanted}, only for {', '.join(offered) or 'nothing'}.",
            hint="Choose a tag for this platform.",
        )
    return min(fitting, key=lambda entry: len(entry.platform))


def _descriptor(record: dict[str, Any]) -> Descriptor:
    digest, size = str(record["digest"]), int(record["size"])
    if not _DIGEST.fullmatch(digest) or size < 0:
        raise UnsupportedImage(f"The manifest names content by {digest[:80]!r}, which is not a SHA-256 digest.")
    if record.get("urls"):
        raise UnsupportedImage("The image has layers that must not be distributed (Windows base layers).")
    platform = record.get("platform") or {}
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return Descriptor(
        media_type=str(record.get("mediaType", "")),
        digest=digest,
        size=size,
        platform="/".join(str(part) for part in parts if part),
    )
