"""The one door to libguestfs: a small virtual machine (its appliance) in which file systems are made and changed.

File systems of users are untrusted; only the appliance's kernel ever mounts them. The bindings block and a hung
appliance cannot be interrupted, so a child process of its own process group holds the handle: when its time is up the
whole group is killed, QEMU with it, and when this process dies the child sees its socket close and ends too.

    ApplianceMissing   libguestfs or its Python bindings are not installed
    ApplianceFailed    launching it or a call in it failed
     └─ ApplianceLost      its process or its kernel ended meanwhile, and no further call will do
         └─ ApplianceTimeout   it took too long and was killed
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from uhm_common.errors import InternalError, Unavailable
from uhm_common.process import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Appliance",
    "ApplianceFailed",
    "ApplianceLost",
    "ApplianceMissing",
    "ApplianceTimeout",
    "Drive",
    "Interruption",
    "open_appliance",
]

DEFAULT_SECONDS = 180.0
DEFAULT_MEMORY_MIB = 512
_END_SECONDS = 10.0
_LOST_SECONDS = 2.0


class ApplianceMissing(Unavailable):
    """libguestfs or its Python bindings are not installed."""


class ApplianceFailed(InternalError):
    """Launching the appliance or a call in it failed."""


class ApplianceLost(ApplianceFailed):
    """The appliance has ended: its process died, or its kernel did."""


class ApplianceTimeout(ApplianceLost):
    """The appliance took too long and was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """A disk image to attach; the first is /dev/sda inside."""

    path: Path
    format: str = "raw"
    readonly: bool = False


class Appliance:
    """A launched appliance. All calls share one deadline, until `allow` sets another."""

    def __init__(self, connection: socket.socket, lines: IO[str], *, directory: Path, seconds: float) -> None:
        self._connection = connection
        self._lines = lines
        self.directory = directory
        """For files that calls write on the host; gone with the appliance."""
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Gives the calls from now on so much time in all."""
        self._limit = seconds
        self._deadline = time.monotonic() + seconds

    def call(self, name: str, *args: object, **kwargs: object) -> Any:
        """Make one guestfs call (guestfs(3)), named as in the Python bindings.

        Raises ApplianceFailed with guestfs's message, ApplianceTimeout when the appliance's time is up, ApplianceLost
        when it has ended.
        """
        return self._exchange({"call": name, "args": args, "kwargs": kwargs}, what=name)

    def kill(self) -> None:
        """Ends it at once; a call that is under way raises ApplianceLost. May be called from another thread."""
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)

    def _exchange(self, request: dict[str, object], *, what: str) -> Any:
        try:
            self._connection.settimeout(max(self._deadline - time.monotonic(), 0.001))
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError:
            raise ApplianceTimeout(f"libguestfs: {what} was not done after {self._limit:g} s in all.") from None
        except OSError as error:
            raise ApplianceLost(f"libguestfs: its process ended during {what}: {error}.") from error
        if not line:
            raise ApplianceLost(f"libguestfs: its process ended during {what}.")
        reply = json.loads(line, object_hook=_decode)
        if "missing" in reply:
            raise ApplianceMissing(
                f"libguestfs cannot be used: {reply['missing']}.", hint="`make setup` installs python3-guestfs."
            )
        if "error" in reply:
            kind = ApplianceLost if reply.get("ended") else ApplianceFailed
            raise kind(f"libguestfs: {what}: {reply['error']}")
        return reply["result"]


class Interruption:
    """Kills, from another thread, the appliance that is opened with it: one that runs, launches or is yet to launch."""

    def __init__(self) -> None:
        self._wanted = False
        self._appliance: Appliance | None = None

    def __call__(self) -> None:
        """Kills it; does nothing where it has ended."""
        self._wanted = True
        if self._appliance is not None:
            self._appliance.kill()

    def concerns(self, appliance: Appliance) -> None:
        """Says which it is."""
        self._appliance = appliance
        if self._wanted:
            appliance.kill()


def _decode(value: dict[str, Any]) -> object:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value


@contextmanager
def open_appliance(
    drives: Sequence[Drive],
    *,
    kvm: bool,
    seconds: float = DEFAULT_SECONDS,
    memory_mib: int = DEFAULT_MEMORY_MIB,
    output_bytes: int = 0,
    interruption: Interruption | None = None,
) -> Iterator[Appliance]:
    """Launch an appliance with these drives; at the end, shut it down, which writes back what it changed.

    `kvm` is whether KVM really runs guests on this host: where /dev/kvm only exists, a launch with it fails or hangs.
    `seconds` bounds everything between launch and end, unless it is allowed other time; `output_bytes`, where given,
    each file that a call writes on the host. It blocks: use a thread from a coroutine, and an `interruption` where that
    may be cancelled.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, _child(theirs, ours) as (process, directory):
        theirs.close()
        with ours.makefile("r") as lines:
            appliance = Appliance(ours, lines, directory=directory, seconds=seconds)
            if interruption is not None:
                interruption.concerns(appliance)
            settings = {
                "kvm": kvm,
                "memory_mib": memory_mib,
                "output_bytes": output_bytes,
                "drives": [
                    {"path": str(drive.path), "format": drive.format, "readonly": drive.readonly} for drive in drives
                ],
            }
            appliance._exchange(settings, what="launch")  # noqa: SLF001 - its maker
            yield appliance
            if not all(drive.readonly for drive in drives):
                appliance.call("shutdown")  # reports what could not be written back, which close does not
                appliance.call("close")
        ours.shutdown(socket.SHUT_RDWR)
        process.wait(_END_SECONDS)


@contextmanager
def _child(theirs: socket.socket, ours: socket.socket) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start the process that holds the handle, in a process group that is gone at the end, whatever happened.

    So are its temporary files, in the directory that is answered too, and its sockets, which only it can find: it is
    given a moment to delete them. The appliance itself stays cached where libguestfs keeps it.
    """
    with tempfile.TemporaryDirectory(prefix="uhm-appliance-", ignore_cleanup_errors=True) as directory:
        own = {"PYTHONPATH": os.pathsep.join(sys.path), "LIBGUESTFS_TMPDIR": directory, "XDG_RUNTIME_DIR": directory}
        process = subprocess.Popen(
            [sys.executable, "-m", "uhm_builder.appliance_child", str(theirs.fileno()), directory],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=child_environment(own),
        )
        try:
            yield process, Path(directory)
        finally:
            with suppress(OSError, subprocess.TimeoutExpired):
                ours.shutdown(socket.SHUT_RDWR)
                process.wait(_LOST_SECONDS)
            with suppress(ProcessLookupError):  # the child may have ended without its QEMU
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
