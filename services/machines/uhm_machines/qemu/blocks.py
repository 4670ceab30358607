"""The nodes behind a machine's disk, as QEMU's blockdev-add takes them (QAPI, block-core.json).

    TOP      what the guest's device is on
     │
    overlay  qcow2: all that this machine has written
     │
    below    qcow2: what the service that it is a clone of had written; only after a `ready` start
     │
    image    the image's disk, a read-only NBD export on a Unix socket

A spare machine that waits for its image has an empty TOP of the right size, and gets the rest put under it.
Host caching stays on, because machines share what they read; a guest's flush is an fdatasync of the overlay, so what a
database in the guest has committed is on the host's disk; what the guest discards is given back to the host's file
system. Paths are relative to the machine's directory, where its QEMU runs.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["BLANK", "RECONNECT_SECONDS", "TOP", "Node", "blank", "disk_over", "image", "swap_in"]

Node = dict[str, Any]

TOP: Final = "disk"
BLANK: Final = "blank"
RECONNECT_SECONDS: Final = 3600
"""How long reads of the image wait for the export to come back, before the guest sees an error."""
_OPEN_SECONDS: Final = 10


def image(socket: str, export: str) -> Node:
    """The image's disk."""
    return {
        "driver": "nbd",
        "node-name": "image",
        "read-only": True,
        "server": {"type": "unix", "path": socket},
        "export": export,
        "reconnect-delay": RECONNECT_SECONDS,
        "open-timeout": _OPEN_SECONDS,
    }


def disk_over(image_node: Node, *, overlay: str, below: str | None = None, name: str = TOP) -> list[Node]:
    """The image and all that lies over it, the lowest first; the last one is called `name`."""
    nodes = [image_node]
    if below is not None:
        nodes.append({**_qcow2(below, "below", over="image"), "read-only": True})
    return [*nodes, _qcow2(overlay, name, over=nodes[-1]["node-name"])]


def blank(size: int) -> list[Node]:
    """An empty disk of this many bytes, to be exchanged later."""
    return [
        {"driver": "null-co", "node-name": BLANK, "size": size, "read-zeroes": True},
        {"driver": "raw", "node-name": TOP, "discard": "unmap", "file": BLANK},
    ]


def swap_in(node: str) -> list[Node]:
    """The argument `options` of blockdev-reopen that puts another disk in the place of `blank`."""
    return [{"driver": "raw", "node-name": TOP, "discard": "unmap", "file": node}]


def _qcow2(file: str, name: str, *, over: str) -> Node:
    return {
        "driver": "qcow2",
        "node-name": name,
        "backing": over,
        "discard": "unmap",
        "file": {"driver": "file", "filename": file, "discard": "unmap"},
    }
