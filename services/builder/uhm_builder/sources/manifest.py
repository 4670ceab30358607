"""Manifests: what a registry answers for a name. Reading them and choosing among platforms.

Specifications: OCI image specification 1.1 (manifest.md, image-index.md), docker image manifest version 2 schema 2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from uhm_builder.errors import InvalidPlatform, UnsupportedImage
from uhm_builder.sources.platforms import Platform, parse_platform

__all__ = ["ACCEPTED", "Descriptor", "Index", "Manifest", "parse_manifest"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")

ATTACHED = "vnd.docker.reference.type"
"""BuildKit's annotation of what belongs to an image but is none, such as attestations."""

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)(?:[+.](?:gzip|zstd))?"
)
_FOREIGN = re.compile(r"nondistributable|\.foreign\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A reference to content by its digest. `platform` is `os/architecture[/variant]`, in an index only."""

    media_type: str
    digest: str
    size: int
    platform: str = ""
    attached: bool = False
    """Whether it belongs to another entry of its index and is no image: an attestation, a signature."""

    @property
    def made_for(self) -> Platform | None:
        """The platform, if it is one."""
        try:
            return None if self.attached else parse_platform(self.platform)
        except InvalidPlatform:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image: its configuration and its layers, the bottom one first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The same image for several platforms."""

    manifests: tuple[Descriptor, ...]

    @property
    def indexes(self) -> tuple[Descriptor, ...]:
        """The indexes in it."""
        return tuple(entry for entry in self.manifests if entry.media_type in INDEXES)

    @property
    def offered(self) -> set[str]:
        """Platforms that it has something for itself."""
        return {str(platform) for entry in self.images if (platform := entry.made_for)}

    @property
    def images(self) -> tuple[Descriptor, ...]:
        """What may be manifests of images; unknown types and what is attached to others are passed over."""
        return tuple(
            entry
            for entry in self.manifests
            if entry.media_type in ("", OCI_MANIFEST, DOCKER_MANIFEST)
            and not entry.attached
            and not entry.platform.startswith("unknown")
        )

    def find(self, wanted: Platform) -> Descriptor | None:
        """The manifest for a platform, of no variant if there is one; else the only one that names no platform."""
        fitting = [entry for entry in self.images if (platform := entry.made_for) and wanted.fits(platform)]
        if not fitting and len(unnamed := [entry for entry in self.images if not entry.platform]) == 1:
            return unnamed[0]
        return min(fitting, key=lambda entry: len(entry.platform), default=None)


def parse_manifest(document: bytes, *, content_type: str) -> Manifest | Index:
    """Read a manifest or an index; the document's own mediaType counts before the header. Raises UnsupportedImage."""
    try:
        record: dict[str, Any] = json.loads(document)
        media_type = record.get("mediaType") or content_type.partition(";")[0].strip()
        if media_type in INDEXES or (media_type not in ACCEPTED and "manifests" in record):
            return Index(manifests=tuple(_descriptor(entry) for entry in record["manifests"]))
        if media_type in SCHEMA_1 or record.get("schemaVersion") == 1:
            raise UnsupportedImage(
                "The image has a manifest of schema 1, which docker gave up in 2019.",
                hint="Pull it with an old docker and push it with a current one.",
            )
        if media_type not in ACCEPTED and "layers" not in record:
            raise UnsupportedImage(
                f"The registry answered a manifest of type {media_type!r}, which is not supported.",
                hint="Push the image again with a current docker or buildkit.",
            )
        manifest = Manifest(
            config=_descriptor(record["config"]), layers=tuple(_layer(entry) for entry in record["layers"])
        )
        kind = str(record.get("artifactType") or manifest.config.media_type or "something else")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedImage("The registry answered something that is not an image manifest.") from error
    if manifest.config.media_type not in CONFIGS:
        raise UnsupportedImage(f"This is not a container image but {kind[:100]}.")
    return manifest


def _layer(record: dict[str, Any]) -> Descriptor:
    layer = _descriptor(record)
    if record.get("urls") or _FOREIGN.search(layer.media_type):
        raise UnsupportedImage(
            "The image has layers that must not be distributed (Windows base layers), and registries do not have them.",
            hint="Choose an image for Linux.",
        )
    if layer.media_type and not _LAYER.fullmatch(layer.media_type):
        raise UnsupportedImage(f"The image has a layer of type {layer.media_type[:100]!r}, which is no file system.")
    return layer


def _descriptor(record: dict[str, Any]) -> Descriptor:
    digest, size = str(record["digest"]), int(record["size"])
    if not _DIGEST.fullmatch(digest) or size < 0:
        raise UnsupportedImage(f"The manifest names content by {digest[:80]!r}, which is not a SHA-256 digest.")
    platform = record.get("platform") or {}
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return Descriptor(
        media_type=str(record.get("mediaType", "")),
        digest=digest,
        size=size,
        platform="/".join(str(part) for part in parts if part),
        attached=bool(record.get("artifactType") or (record.get("annotations") or {}).get(ATTACHED)),
    )
