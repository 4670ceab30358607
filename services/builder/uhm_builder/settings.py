"""What the builder is told from outside; the environment variables are `UHM_` and the names here."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from uhm_builder.appliances import Bounds
from uhm_builder.hosts import DENIED, HostRules, parse_rules
from uhm_builder.inside.views import Limits
from uhm_builder.layers import MAX_ENTRIES
from uhm_builder.quotas import Quota
from uhm_builder.retention import Rules
from uhm_common.settings import Address, CommonSettings

__all__ = ["BuilderSettings"]

GIB = 1 << 30
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _mirrors(value: object) -> object:
    """`docker.io=http://127.0.0.1:5001,ghcr.io=https://mirror.example` as a mapping."""
    if not isinstance(value, str):
        return value
    mirrors: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in value.split(","))):
        registry, _, url = word.partition("=")
        if not registry or not url.startswith(("http://", "https://")):
            message = f"{word!r} is not REGISTRY=URL, as in docker.io=https://mirror.example"
            raise ValueError(message)
        mirrors[registry] = url.rstrip("/")
    return mirrors


def _hosts(value: object) -> object:
    """`ghcr.io,*.example.com,10.0.0.0/8` as rules."""
    if not isinstance(value, str):
        return value
    rules = tuple(filter(None, (part.strip() for part in value.split(","))))
    parse_rules(rules)
    return rules


def _directories(value: object) -> object:
    """`/srv/images/{user},/mnt/shared` as paths."""
    if not isinstance(value, str):
        return value
    words = tuple(filter(None, (part.strip() for part in value.split(","))))
    for word in words:
        if not word.startswith("/"):
            message = f"{word!r} is not an absolute path"
            raise ValueError(message)
    return words


def _path_if_any(value: object) -> object:
    """An empty variable is none, not the current directory."""
    return value or None


OptionalPath = Annotated[Path | None, BeforeValidator(_path_if_any)]
Directories = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_directories)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)]
Mirrors = Annotated[dict[str, str], NoDecode, BeforeValidator(_mirrors)]


class BuilderSettings(CommonSettings):
    """Settings of the builder's API and of its workers."""

    listen: Address | None = Field(default=None, description="HOST:PORT to serve on; the API's default is its address.")
    mkfs_erofs: str = Field(default="mkfs.erofs", description="mkfs.erofs 1.8 or newer.")
    guest_init: Path = Field(
        default=Path("build/guest/init"), description="The guest's init, as `make -C guest` makes it."
    )
    guest_kernel: OptionalPath = Field(
        default=None,
        description="Directory of a kernel that `make kernel` has built; empty: the newest that is installed.",
    )
    guest_portable: OptionalPath = Field(
        default=Path("build/guest/portable"), description="Programs for exported disks, as `make -C guest` makes them."
    )
    guest_portable_kernel: OptionalPath = Field(
        default=Path("build/guest/kernels/generic"),
        description="A kernel with drivers for real hardware, for exported disks, as `make setup` unpacks it.",
    )
    docker_host: str = Field(default="unix:///var/run/docker.sock", description="The Docker Engine.")
    build_network: str = Field(default="", description="Network of Dockerfile builds; empty: the engine's default.")
    registry_mirrors: Mirrors = Field(
        default_factory=dict, description="REGISTRY=URL,… ; a mirror is asked before its registry."
    )
    registry_auth_file: Path | None = Field(
        default=None, description="Credentials of registries, in the form of docker's config.json."
    )
    registry_hosts_denied: Hosts = Field(
        default=DENIED,
        description="HOST,*.DOMAIN,ADDRESS,NETWORK,… that images must not come from; "
        "by default link-local addresses, and those where clouds hand out credentials.",
    )
    registry_hosts_allowed: Hosts = Field(default=(), description="If set, the only ones that images may come from.")
    kvm: bool = Field(default=False, description="Whether KVM really runs guests here; makes the base sooner.")
    architecture: str = Field(
        default=ARCHITECTURES.get(platform.machine(), platform.machine()),
        description="What images must be made for; by default what this machine is.",
    )
    max_context_bytes: int = Field(
        default=GIB, gt=0, description="Largest upload: a build context, or an archive of images or files."
    )
    max_contexts_bytes: int = Field(default=32 * GIB, gt=0, description="All uploads that are kept, together.")
    max_archive_bytes: int = Field(
        default=32 * GIB, gt=0, description="Largest archive of images that is unpacked, without its compression."
    )
    max_layer_bytes: int = Field(default=32 * GIB, gt=0, description="Largest layer, uncompressed.")
    max_layer_entries: int = Field(default=MAX_ENTRIES, gt=0, description="Most files and directories in a layer.")
    parallel_builds: int = Field(default=4, ge=1, le=64, description="Builds at once, per worker.")
    parallel_layers: int = Field(
        default=os.cpu_count() or 1, ge=1, le=256, description="Layers converted at once, per worker."
    )
    parallel_exports: int = Field(default=2, ge=1, le=64, description="Disks that are exported at once.")
    export_stall_seconds: float = Field(
        default=60, gt=0, description="An export whose client takes nothing for so long is given up."
    )
    ack_wait_seconds: float = Field(default=10, ge=1, description="A worker silent for so long is taken for lost.")
    lost_after_seconds: float = Field(
        default=60,
        ge=1,
        description="A build that no worker holds for so long, while the queue is empty, is queued again.",
    )
    layer_grace_seconds: float = Field(
        default=3600, ge=0, description="How long layers and disks are kept that no image needs any more."
    )
    max_images_per_user: int = Field(default=0, ge=0, description="0: no bound; so for the next two.")
    max_bytes_per_user: int = Field(default=0, ge=0, description="Of the layers of a user's images, each counted once.")
    max_builds_per_user: int = Field(default=0, ge=0, description="At once.")
    keep_images_per_name: int = Field(
        default=0, ge=0, description="How many images of a repository a user keeps, the newest; 0: all."
    )
    untagged_days: int = Field(
        default=0, ge=0, description="Images that lost their tag to a newer one are deleted after so long; 0: never."
    )
    appliances: int = Field(
        default=2, ge=1, le=16, description="How many appliances look into images at once; in a worker, customise them."
    )
    appliance_memory_mib: int = Field(default=512, ge=256, description="What each of them has.")
    appliance_seconds: float = Field(default=120, ge=1, description="How long its launch may take, and each use.")
    appliance_idle_seconds: float = Field(default=60, ge=0.1, description="How long it is kept for the next use.")
    max_file_bytes: int = Field(default=8 * GIB, gt=0, description="Largest file of an image that is read.")
    max_attempts: int = Field(default=5, ge=1, description="How often a build is taken up before it is given up.")
    storage_directories: Directories = Field(
        default=(),
        description="DIR,… ; storage locations may be below these, in which {user} is the user's name, with whom what "
        "is in there is deleted; empty: published/{user} in the state directory.",
    )
    parallel_publications: int = Field(default=2, ge=1, le=64, description="Publications at once, per worker.")
    publication_attempts: int = Field(
        default=10, ge=1, description="How often a publication is tried before it is given up."
    )

    @property
    def host_rules(self) -> HostRules:
        """Which hosts images may come from; always from the operator's mirrors."""
        mirrors = tuple(urlsplit(url).hostname or "" for url in self.registry_mirrors.values())
        allowed = self.registry_hosts_allowed and (*self.registry_hosts_allowed, *mirrors)
        return HostRules.of(denied=self.registry_hosts_denied, allowed=allowed)

    @property
    def api_address(self) -> str:
        """Where the API serves."""
        return self.listen or self.builder_address

    @property
    def quota(self) -> Quota:
        """What one user may have."""
        return Quota(images=self.max_images_per_user, bytes=self.max_bytes_per_user, builds=self.max_builds_per_user)

    @property
    def rules(self) -> Rules:
        """Which images are deleted without being asked for."""
        return Rules(keep_per_name=self.keep_images_per_name, untagged_days=self.untagged_days)

    @property
    def appliance_limits(self) -> Limits:
        """What one appliance may take."""
        return Limits(kvm=self.kvm, memory_mib=self.appliance_memory_mib, seconds=self.appliance_seconds)

    @property
    def appliance_bounds(self) -> Bounds:
        """How many appliances there may be, and for how long."""
        return Bounds(at_once=self.appliances, idle_seconds=self.appliance_idle_seconds)

    @property
    def allowed_directories(self) -> tuple[str, ...]:
        """Where storage locations may be."""
        return self.storage_directories or (f"{self.state_dir.absolute()}/published/{{user}}",)

    @property
    def secrets_key(self) -> Path:
        """The key that users' credentials are encrypted with, and page tokens signed."""
        return self.key_path("builder-secrets")

    @property
    def contexts_dir(self) -> Path:
        """Uploaded build contexts."""
        return self.state_dir / "contexts"
