"""What a system is told and what is noted about it: ports, engine, environment; files in `STATE/run`."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from uhm.system.ports import choose_ports, is_free

if TYPE_CHECKING:
    from pathlib import Path

    from uhm.system.layout import Layout

__all__ = ["InternalPorts", "SystemRecord", "load_internal_ports", "nats_token", "write_private"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalPorts:
    """Ports on loopback that only the parts themselves use."""

    nats: int
    auth: int
    builder: int
    worker: int
    machines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRecord:
    """A system that runs, or was started and not ended."""

    rest_port: int
    grpc_port: int
    ports: InternalPorts
    docker_host: str = ""
    private_docker: bool = False
    environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Where REST answers."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def grpc_target(self) -> str:
        """Where gRPC answers."""
        return f"127.0.0.1:{self.grpc_port}"

    def save(self, layout: Layout) -> None:
        """Writes the record; it holds secrets, so only the owner may read it."""
        write_private(layout.record_file, json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, layout: Layout) -> SystemRecord | None:
        """The record of a system that was started and not ended, or None."""
        document = _read_json(layout.record_file)
        if document is None:
            return None
        return cls(**document | {"ports": InternalPorts(**document["ports"])})


def load_internal_ports(layout: Layout, *, anew: bool = False, avoid: frozenset[int] = frozenset()) -> InternalPorts:
    """The ports of the last start where they are still free, else others, which are kept from now on."""
    names = [port.name for port in fields(InternalPorts)]
    kept = _read_json(layout.ports_file)
    if not anew and kept is not None and set(kept) == set(names):
        ports = InternalPorts(**kept)
        if all(is_free(port) and port not in avoid for port in kept.values()):
            return ports
    ports = InternalPorts(**dict(zip(names, choose_ports(len(names), avoid=avoid), strict=True)))
    write_private(layout.ports_file, json.dumps(asdict(ports)))
    return ports


def nats_token(layout: Layout) -> str:
    """The token that NATS asks for: random, made once, kept where only the owner may read it."""
    path = layout.run_dir / "nats.token"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, in one step: nobody sees half of it."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return document
