"""What an image is, from the wish for it to its disk: values only.

Its state machine is `TRANSITIONS`; an image that has ended never changes its status again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from uhm_common.healthcheck import Healthcheck

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uhm_builder.customization import Customization

__all__ = [
    "TRANSITIONS",
    "Archive",
    "BuildContext",
    "Healthcheck",
    "Image",
    "ImageConfig",
    "ImageWish",
    "Layer",
    "Stage",
    "StageName",
    "Status",
    "build_context",
    "image_config",
]


class Status(StrEnum):
    """Where an image is."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return not TRANSITIONS[self]


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.BUILDING: frozenset({Status.READY, Status.FAILED, Status.CANCELLED}),
    Status.READY: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class StageName(StrEnum):
    """The stages of a build, in order."""

    RESOLVE = "resolve"
    BUILD = "build"
    CUSTOMIZE = "customize"
    CONVERT = "convert"
    BASE = "base"
    COMPOSE = "compose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of an image and its blob in the store."""

    diff_id: str
    """SHA-256 of the uncompressed tar archive; what stands for it where it came as a blob (sources/storage.py)."""
    digest: str = ""
    """Of the compressed blob in the registry; empty where there is none."""
    size: int = 0
    """Bytes of the EROFS blob; 0 until it is known."""
    reused: bool = False
    """Whether the blob was there before this build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of a build that has ended. `start_ms` counts from when the build was taken up."""

    name: str
    start_ms: float
    duration_ms: float
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What of an image's configuration running it needs (OCI image specification, config)."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    architecture: str = ""
    healthcheck: Healthcheck | None = None
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """What a Dockerfile build was asked for."""

    id: str
    dockerfile: str = "Dockerfile"
    build_args: dict[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    secret_ids: tuple[str, ...] = ()
    """The names of its secrets; what they are is in the memory of `uhm_builder.secrets` only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An uploaded archive of container images, and the name of one in it; empty where there is only one."""

    id: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWish:
    """What a client asks for. Without a source, the name says where the image comes from."""

    name: str
    tag: str = ""
    source: BuildContext | Archive | Customization | None = None
    platform: str = ""
    """As in `linux/amd64`; empty for what machines here run."""
    publish: tuple[str, ...] = ()
    """Names of storage locations."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Build secrets by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as the database has it. Times are nanoseconds since the epoch."""

    number: int
    id: str
    owner: str
    reference: str
    status: Status
    created_at: int
    context: BuildContext | None = None
    archive: Archive | None = None
    customization: Customization | None = None
    platform: str = ""
    publish: tuple[str, ...] = ()
    reason: str = ""
    attempt: int = 0
    lease_until: int = 0
    ended_at: int | None = None
    digest: str = ""
    disk_digest: str = ""
    layers: tuple[Layer, ...] = ()
    stages: tuple[Stage, ...] = ()
    config: ImageConfig = field(default_factory=ImageConfig)

    @property
    def size(self) -> int:
        """Bytes of all its layers as stored."""
        return sum(layer.size for layer in self.layers)


def build_context(record: dict[str, Any]) -> BuildContext:
    """From what `dataclasses.asdict` and JSON made of it."""
    return BuildContext(**record | {"secret_ids": tuple(record.get("secret_ids", ()))})


def image_config(record: dict[str, Any]) -> ImageConfig:
    """From what `dataclasses.asdict` and JSON made of it; what an older version did not write has its default."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return ImageConfig(**values | {"healthcheck": Healthcheck.of(record.get("healthcheck"))})
