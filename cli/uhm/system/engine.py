"""Which Docker Engine builds Dockerfiles: the one that answers, else one of our own, else none."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uhm.system.layout import Layout
    from uhm_common.dockerd import PrivateDockerd

__all__ = ["Engine", "answers", "choose_engine", "hub_mirror", "private_dockerd", "running_engine"]

DEFAULT_HOST = "unix:///var/run/docker.sock"
OFF = "Dockerfile builds and docker-daemon: references are off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """`host` is as in DOCKER_HOST, empty for none; `note` says what was found, for the user."""

    host: str
    private: bool
    note: str


def running_engine(environment: Mapping[str, str]) -> str:
    """The first engine that answers, of the one that DOCKER_HOST names and the usual places; empty for none."""
    hosts = [environment.get("DOCKER_HOST", ""), DEFAULT_HOST]
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        hosts.append(f"unix://{runtime}/docker.sock")
    return next((host for host in hosts if host and answers(host)), "")


def answers(host: str) -> bool:
    """Whether an engine answers at an address of DOCKER_HOST's form; TCP addresses are only connected to."""
    from uhm_common.dockerd import engine_answers  # noqa: PLC0415 - heavy

    parts = urlsplit(host)
    if parts.scheme == "unix":
        return engine_answers(Path(parts.path))
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 2375), timeout=2):
            return True
    except (OSError, ValueError):
        return False


def choose_engine(layout: Layout, *, environment: Mapping[str, str]) -> Engine:
    """The engine to use: UHM_DOCKER_HOST whatever it names, else what is there. One of our own is not started here."""
    if named := environment.get("UHM_DOCKER_HOST"):
        state = "" if answers(named) else ", which does not answer now"
        return Engine(host=named, private=False, note=f"the Docker Engine at {named}{state}")
    if host := running_engine(environment):
        return Engine(host=host, private=False, note=f"the Docker Engine at {host}")
    if reason := _why_not_private():
        return Engine(host="", private=False, note=f"No Docker Engine answers and {reason}: {OFF}.")
    engine = private_dockerd(layout, environment=environment)
    return Engine(host=engine.host, private=True, note=f"a Docker Engine of our own at {engine.host}")


def _why_not_private() -> str:
    """Why no engine of our own can be started, as the rest of a sentence; empty where it can."""
    if shutil.which("dockerd") is None:
        return "dockerd is not installed (`make setup` installs it)"
    if os.geteuid() != 0:
        return "starting one needs root"
    if Path("/run/systemd/system").is_dir():
        return "the system's is not running (`systemctl start docker` starts it)"
    return ""


def private_dockerd(layout: Layout, *, environment: Mapping[str, str]) -> PrivateDockerd:
    """The engine that belongs to this state directory, running or not."""
    from uhm_common.dockerd import PrivateDockerd  # noqa: PLC0415 - heavy

    return PrivateDockerd(layout.docker_dir, registry_mirror=hub_mirror(environment.get("UHM_REGISTRY_MIRRORS", "")))


def hub_mirror(mirrors: str) -> str:
    """The mirror of Docker Hub in `REGISTRY=URL,…`, the only registry that an engine mirrors; empty for none."""
    named = (word.strip().partition("=") for word in mirrors.split(","))
    return next((url for registry, _, url in named if registry == "docker.io"), "")
