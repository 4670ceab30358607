"""supervisord: its configuration, its start, and what it says about the programs it runs.

The configuration names everything relative to the state directory, which is supervisord's working directory, so that no
path of the user's is ever parsed by it. What all programs are told goes through supervisord's own environment for the
same reason, and because that holds secrets.
"""

from __future__ import annotations

import http.client
import os
import resource
import shlex
import socket
import subprocess
import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from uhm.errors import SystemFailed
from uhm.system.processes import recorded_argv
from uhm.system.programs import Program, binary_dir
from uhm.system.record import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from uhm.system.layout import Layout

__all__ = ["SUPERVISOR", "ProgramState", "Supervisor", "configuration", "start_supervisor"]

SUPERVISOR = "supervisord"
MOST_OPEN_FILES = 65_536
CALL_SECONDS = 10.0

HEAD = """\
[unix_http_server]
file={socket}
chmod=0600

[supervisord]
nodaemon=true
silent=true
logfile=log/supervisord.log
logfile_maxbytes=10MB
logfile_backups=1
pidfile=run/supervisord.pid
childlogdir=log
minfds={open_files}
umask=077
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

# A program that ends is started again at once, and then, while it ends within a second, after 1, 2, 3, … seconds.
PROGRAM = """
[program:{name}]
command={command}
environment={environment}
priority={priority}
autostart=true
autorestart=true
startsecs=1
startretries=1000000
stopsignal=TERM
stopwaitsecs={stop_seconds}
killasgroup={owns_children}
redirect_stderr=true
stdout_logfile=log/{name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=2
"""


def configuration(layout: Layout, parts: list[Program]) -> str:
    """The configuration file of supervisord."""
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    head = HEAD.format(
        socket=_value(str(layout.supervisor_socket)) if _outside(layout) else "run/supervisor.sock",
        open_files=MOST_OPEN_FILES if hard_limit == resource.RLIM_INFINITY else min(MOST_OPEN_FILES, hard_limit),
        user="user=root\n" if os.geteuid() == 0 else "",
    )
    return head + "".join(_program(part) for part in parts)


def _outside(layout: Layout) -> bool:
    return not layout.supervisor_socket.is_relative_to(layout.state_dir)


def _program(part: Program) -> str:
    return PROGRAM.format(
        name=part.name,
        command=_value(shlex.join(recorded_argv(f"run/processes/{part.name}", part.argv))),
        environment=",".join(f'{name}="{value}"' for name, value in part.environment.items()),
        priority=part.priority,
        stop_seconds=part.stop_seconds,
        owns_children="true" if part.owns_children else "false",
    )


def _value(text: str) -> str:
    """A value as the file wants it: `%` doubled. Raises SystemFailed for what it would take for a comment."""
    if any(sign in text for sign in (" ;", " #", "\n")):
        raise SystemFailed(f"supervisord cannot be told {text!r}.", hint="Choose a path without ' ;', ' #' or newline.")
    return text.replace("%", "%%")


def start_supervisor(
    layout: Layout, parts: list[Program], *, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Writes the configuration and starts supervisord in a session of its own, where Ctrl-C does not reach it."""
    write_private(layout.supervisor_config, configuration(layout, parts))
    layout.supervisor_socket.unlink(missing_ok=True)
    argv = [str(binary_dir() / "supervisord"), "-c", "run/supervisord.conf"]
    with (layout.log_dir / "supervisord.start.log").open("wb") as log:
        return subprocess.Popen(
            recorded_argv(f"run/processes/{SUPERVISOR}", argv),
            cwd=layout.state_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramState:
    """What supervisord says about a program; `state` is its word for it (RUNNING, BACKOFF, …)."""

    name: str
    state: str
    pid: int
    started: int
    stopped: int
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself and waits to be started again."""
        return self.state in {"BACKOFF", "FATAL", "EXITED"}


class Supervisor:
    """A supervisord that runs, asked over its Unix socket."""

    def __init__(self, socket_path: Path) -> None:
        self._socket = socket_path

    def states(self) -> list[ProgramState] | None:
        """The programs, or None where supervisord does not answer."""
        try:
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(self._socket)) as proxy:
                answer = cast("list[dict[str, Any]]", proxy.supervisor.getAllProcessInfo())
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return None
        return [
            ProgramState(
                name=entry["name"],
                state=entry["statename"],
                pid=entry["pid"],
                started=entry["start"],
                stopped=entry["stop"],
                reason=entry["spawnerr"] or entry["description"],
            )
            for entry in answer
        ]


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__()
        self._path = socket_path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """The connection, which is closed with the transport; the host name is of no account."""
        connection = _UnixConnection(self._path)
        self._connection = host, connection
        return connection


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connects to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_SECONDS)
        self.sock.connect(str(self._path))
