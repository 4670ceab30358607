"""The parts of the system as programs: what each runs, what it is told, in which order they come and go."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uhm.system.acceleration import kvm_works
from uhm.system.layout import checkout
from uhm.system.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uhm.system.engine import Engine
    from uhm.system.layout import Layout
    from uhm.system.record import InternalPorts, SystemRecord

__all__ = [
    "CLIENT_VARIABLES",
    "DOCKER",
    "KEY_FILE",
    "NATS",
    "STOP_ORDER",
    "Program",
    "binary_dir",
    "built_tools",
    "environment",
    "programs",
]

NATS = "nats"
DOCKER = "docker"
# Who is asked for something ends before who is asked by it: no request meets a part that has gone already.
STOP_ORDER = ("gateway", "machines", "builder", "worker", "auth", NATS, DOCKER)
# For the command line itself; the services have no use for them.
CLIENT_VARIABLES = frozenset({"UHM_TOKEN", "UHM_URL"})
# For one service at a time: all would encrypt, and sign page tokens, with the same key.
KEY_FILE = "UHM_KEY_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A supervised program. `environment` is what only this one is told; `stop_seconds` until it is ended by force."""

    name: str
    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    stop_seconds: int = 10
    # Whether ending it by force ends its children too. Machines outlive the service that started them.
    owns_children: bool = True

    @property
    def priority(self) -> int:
        """supervisord starts lower ones first and stops higher ones first."""
        return 100 * (len(STOP_ORDER) - STOP_ORDER.index(self.name))


def binary_dir() -> Path:
    """Where the programs that come with the Python packages are, nats-server among them."""
    return Path(sys.prefix) / "bin"


def programs(record: SystemRecord) -> list[Program]:
    """All parts; supervisord runs them in the state directory, so their paths are relative to it."""
    ports = record.ports
    parts = [
        Program(name=NATS, argv=[str(binary_dir() / "nats-server"), "-c", "run/nats.conf"]),
        _service("auth", module="uhm_auth", port=ports.auth),
        _service("builder", module="uhm_builder", port=ports.builder),
        _service("worker", module="uhm_builder.worker", port=ports.worker),
        _service("machines", module="uhm_machines", port=ports.machines, stop_seconds=20, owns_children=False),
        _gateway(record),
    ]
    if record.private_docker:
        argv = [sys.executable, "-m", "uhm.system.own_engine"]
        parts.append(Program(name=DOCKER, argv=argv, stop_seconds=25, owns_children=False))
    return parts


def _service(name: str, *, module: str, port: int, stop_seconds: int = 10, owns_children: bool = True) -> Program:
    return Program(
        name=name,
        argv=[sys.executable, "-m", module],
        environment={"UHM_LISTEN": f"{LOOPBACK}:{port}"},
        stop_seconds=stop_seconds,
        owns_children=owns_children,
    )


def _gateway(record: SystemRecord) -> Program:
    ports = ["--rest-port", str(record.rest_port), "--grpc-port", str(record.grpc_port)]
    return Program(name="gateway", argv=[sys.executable, "-m", "uhm_gateway", *ports])


def environment(
    layout: Layout, *, ports: InternalPorts, nats_token: str, engine: Engine, inherited: Mapping[str, str]
) -> dict[str, str]:
    """What all services are told: where the others are, and every UHM_* that this process was told and is for all."""
    told = {name: value for name, value in inherited.items() if name.startswith("UHM_")}
    told = {name: value for name, value in told.items() if name not in CLIENT_VARIABLES | {KEY_FILE}}
    return (
        built_tools()
        | ({"UHM_KVM": "true"} if kvm_works(layout) else {})
        | told
        | _engine_variables(engine, told=told)
        | {
            "UHM_STATE_DIR": str(layout.state_dir),
            "UHM_AUTH_ADDRESS": f"{LOOPBACK}:{ports.auth}",
            "UHM_BUILDER_ADDRESS": f"{LOOPBACK}:{ports.builder}",
            "UHM_WORKER_ADDRESS": f"{LOOPBACK}:{ports.worker}",
            "UHM_MACHINES_ADDRESS": f"{LOOPBACK}:{ports.machines}",
            "UHM_NATS_URL": f"nats://{nats_token}@{LOOPBACK}:{ports.nats}",
            "TMPDIR": str(layout.temporary_dir),
            "PATH": f"{binary_dir()}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        }
    )


def _engine_variables(engine: Engine, *, told: Mapping[str, str]) -> dict[str, str]:
    """Where Dockerfiles are built. An engine of our own has no bridge: its builds use the host's network."""
    if not engine.host:
        return {}
    network = {"UHM_BUILD_NETWORK": "host"} if engine.private and "UHM_BUILD_NETWORK" not in told else {}
    return {"UHM_DOCKER_HOST": engine.host} | network


def built_tools() -> dict[str, str]:
    """What the checkout has built, where it has."""
    root = checkout()
    if root is None:
        return {}
    built = {
        "UHM_MKFS_EROFS": root / "build/tools/mkfs.erofs",
        "UHM_GUEST_INIT": root / "build/guest/init",
        "UHM_GUEST_KERNEL": root / "build/guest/kernels/minimal",
        "UHM_GUEST_PORTABLE": root / "build/guest/portable",
        "UHM_GUEST_PORTABLE_KERNEL": root / "build/guest/kernels/generic",
    }
    return {name: str(path) for name, path in built.items() if path.exists()}
