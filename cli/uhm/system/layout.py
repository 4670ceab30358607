"""Where things are: the state directory of a system, and the checkout that its tools were built in.

STATE/
  run/                  0700; what belongs to the system that runs now
    lock                held while `uhm up` starts and `uhm down` ends the system
    ports.json          the internal ports, kept between runs
    system.json         0600; what runs: ports, engine, environment. Absent when nothing does
    processes/NAME      id and start time of each process, written by the process itself before it executes
    supervisord.conf nats.conf nats.token supervisor.sock
  log/NAME.log          what each part writes
  nats/ docker/ tmp/    data of NATS and of a Docker Engine of our own, temporary files
  artifacts/ *.db …     what the services keep
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layout", "checkout", "default_state_dir"]

# A Unix socket's path has 108 bytes at most, and supervisord appends its process id while it binds.
LONGEST_SOCKET_PATH = 95


def default_state_dir() -> Path:
    """`UHM_STATE_DIR`, else `/var/lib/uhmalguhm` for root, and a directory in the home for everybody else."""
    if named := os.environ.get("UHM_STATE_DIR"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/uhmalguhm")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "uhmalguhm"


def checkout() -> Path | None:
    """The source tree this package runs from, or None where it is installed without one."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "protos").is_dir() and (root / "guest").is_dir() else None


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one system; `state_dir` is absolute."""

    state_dir: Path

    @classmethod
    def of(cls, state_dir: Path) -> Layout:
        """The layout of a state directory, which need not exist yet."""
        return cls(state_dir.expanduser().resolve())

    @property
    def run_dir(self) -> Path:
        """What belongs to the system that runs now."""
        return self.state_dir / "run"

    @property
    def processes_dir(self) -> Path:
        """A file per process with its id and start time."""
        return self.run_dir / "processes"

    @property
    def log_dir(self) -> Path:
        """What the parts write."""
        return self.state_dir / "log"

    @property
    def temporary_dir(self) -> Path:
        """`TMPDIR` of the services."""
        return self.state_dir / "tmp"

    @property
    def docker_dir(self) -> Path:
        """Images of a Docker Engine of our own."""
        return self.state_dir / "docker"

    @property
    def lock(self) -> Path:
        """Held while the system is started or ended."""
        return self.run_dir / "lock"

    @property
    def ports_file(self) -> Path:
        """The internal ports."""
        return self.run_dir / "ports.json"

    @property
    def record_file(self) -> Path:
        """What runs; absent when nothing does."""
        return self.run_dir / "system.json"

    @property
    def supervisor_config(self) -> Path:
        """What supervisord reads."""
        return self.run_dir / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Where supervisord answers; outside the state directory where the path would be too long for a socket."""
        path = self.run_dir / "supervisor.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        runtime = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(runtime) / f"uhm-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"

    def log(self, name: str) -> Path:
        """What a part writes."""
        return self.log_dir / f"{name}.log"

    def process_file(self, name: str) -> Path:
        """Id and start time of a part's process."""
        return self.processes_dir / name

    def make(self) -> None:
        """Makes the directories; the state directory is readable by its owner only."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.run_dir, self.processes_dir, self.log_dir, self.temporary_dir):
            path.mkdir(mode=0o700, exist_ok=True)
