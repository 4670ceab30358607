"""The directory of a machine: what is in it, and reaching its sockets however deep it is.

machines/<id>/          0700
  disk.qcow2            all that the machine has written, over its image's disk
  below.qcow2           what the service that it is a clone of had written (a hard link), after a `ready` start
  console.log           the kernel's and init's messages since the last start
  events                the guest's events since the last start (docs/guest.md)
  output                the workload's output in frames, over all starts
  control.sock qmp.sock listened on by QEMU
  lock pid exit qemu.log    see uhm_machines.qemu.process
"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["MachineFiles", "connect_unix", "listen_unix"]

_OF_ONE_START = ("console.log", "events", "control.sock", "qmp.sock", "pid", "exit")


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """Paths of one machine."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The qcow2 overlay."""
        return self.directory / "disk.qcow2"

    @property
    def below(self) -> Path:
        """The qcow2 that lies under the overlay of a clone."""
        return self.directory / "below.qcow2"

    @property
    def console(self) -> Path:
        """Messages of the kernel and of init."""
        return self.directory / "console.log"

    @property
    def events(self) -> Path:
        """The guest's events."""
        return self.directory / "events"

    @property
    def output(self) -> Path:
        """The workload's output."""
        return self.directory / "output"

    @property
    def control_socket(self) -> Path:
        """Of the guest channel."""
        return self.directory / "control.sock"

    @property
    def qmp_socket(self) -> Path:
        """Of QEMU's monitor."""
        return self.directory / "qmp.sock"

    def make(self) -> None:
        """Makes the directory, for our user only."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def pid(self) -> Path:
        """Written when the process of a start has come to be (uhm_machines.qemu.process)."""
        return self.directory / "pid"

    def begin_start(self) -> None:
        """Removes what belongs to the last start; the disk and the output stay. Both logs exist from here on."""
        for name in _OF_ONE_START:
            (self.directory / name).unlink(missing_ok=True)
        self.output.touch(mode=0o600)
        self.console.touch(mode=0o600)

    def discard_disk(self) -> None:
        """Removes what a start that came to nothing has made of a disk."""
        self.disk.unlink(missing_ok=True)
        self.below.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.directory, ignore_errors=True)


def connect_unix(path: Path) -> socket.socket:
    """Connects to a Unix stream socket whose path may be longer than the 108 bytes that an address has room for.

    Raises OSError. The socket does not block.
    """
    return _with_short_path(path, lambda sock, short: sock.connect(short))


def listen_unix(path: Path) -> socket.socket:
    """Listens on a Unix stream socket made at `path`, in place of what was there. Raises OSError."""

    def bind(sock: socket.socket, short: str) -> None:
        path.unlink(missing_ok=True)
        sock.bind(short)
        sock.listen()

    return _with_short_path(path, bind)


def _with_short_path(path: Path, use: Callable[[socket.socket, str], None]) -> socket.socket:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        use(sock, f"/proc/self/fd/{directory}/{path.name}")
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock
