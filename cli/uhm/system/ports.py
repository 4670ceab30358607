"""TCP ports of this machine: which are free, and who holds one that is not."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["LOOPBACK", "choose_ports", "holder_of", "is_free"]

LOOPBACK = "127.0.0.1"
# Below the range that the kernel takes ports of outgoing connections from, so that a service that is started again
# finds its port free.
INTERNAL_PORTS = range(20_000, 32_000)
LISTEN_STATE = "0A"


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_ports(count: int, *, avoid: frozenset[int] = frozenset()) -> list[int]:
    """Different free ports on loopback, at random, so that two systems started at once rarely choose the same."""
    candidates = random.SystemRandom().sample(INTERNAL_PORTS, len(INTERNAL_PORTS))
    chosen: list[int] = []
    for port in candidates:
        if len(chosen) == count:
            break
        if port not in avoid and is_free(port):
            chosen.append(port)
    return chosen


def holder_of(port: int) -> str:
    """Which process listens on a TCP port, as `nginx (process 123)`; empty where that cannot be seen."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(handle.readlink()) in inodes for handle in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return ""


def _listening_inodes(port: int) -> list[str]:
    """Inodes of sockets that listen on a port; `/proc/net/tcp` has address:port in hexadecimal, state, and inode."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found
