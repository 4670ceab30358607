"""What the builder is told from outside; the environment variables are `UHM_` and the names here."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

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


def _path_if_any(value: object) -> object:
    """An empty variable is none, not the current directory."""
    return value or None


OptionalPath = Annotated[Path | None, BeforeValidator(_path_if_any)]
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
    docker_host: str = Field(default="unix:///var/run/docker.sock", description="The Docker Engine.")
    build_network: str = Field(default="", description="Network of Dockerfile builds; empty: the engine's default.")
    registry_mirrors: Mirrors = Field(
        default_factory=dict, description="REGISTRY=URL,… ; a mirror is asked before its registry."
    )
    registry_auth_file: Path | None = Field(
        default=None, description="Credentials of registries, in the form of docker's config.json."
    )
    kvm: bool = Field(default=False, description="Whether KVM really runs guests here; makes the base sooner.")
    architecture: str = Field(
        default=ARCHITECTURES.get(platform.machine(), platform.machine()),
        description="What images must be made for; by default what this machine is.",
    )
    max_context_bytes: int = Field(default=GIB, gt=0, description="Largest build context that is taken.")
    max_layer_bytes: int = Field(default=32 * GIB, gt=0, description="Largest layer, uncompressed.")
    parallel_builds: int = Field(default=4, ge=1, le=64, description="Builds at once, per worker.")
    parallel_layers: int = Field(
        default=os.cpu_count() or 1, ge=1, le=256, description="Layers converted at once, per worker."
    )
    ack_wait_seconds: float = Field(default=10, ge=1, description="A worker silent for so long is taken for lost.")
    lost_after_seconds: float = Field(
        default=60,
        ge=1,
        description="A build that no worker holds for so long, while the queue is empty, is queued again.",
    )
    max_attempts: int = Field(default=5, ge=1, description="How often a build is taken up before it is given up.")

    @property
    def api_address(self) -> str:
        """Where the API serves."""
        return self.listen or self.builder_address

    @property
    def contexts_dir(self) -> Path:
        """Uploaded build contexts."""
        return self.state_dir / "contexts"
