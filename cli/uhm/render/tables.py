"""Tables as docker prints them: columns apart by blanks, one row a line, so that other programs can read them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm.render.units import age, ago, short_id, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = [
    "columns",
    "images_table",
    "machine_ports",
    "machine_status",
    "machines_table",
    "port_text",
    "registries_table",
]

GAP = "   "
LONGEST_COMMAND = 24


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under their headers; each column is as wide as its widest cell."""
    table = [headers, *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(headers))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def images_table(images: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm images`."""
    rows = [
        (
            image.get("reference") or "<none>",
            short_id(image["id"]),
            image.get("status", ""),
            ago(image.get("create_time"), now=now),
            str(len(image.get("layers", []))),
            size(image.get("size_bytes")),
        )
        for image in images
    ]
    return columns(("REFERENCE", "IMAGE ID", "STATUS", "CREATED", "LAYERS", "SIZE"), rows)


def registries_table(registries: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm registry ls`."""
    rows = [
        (
            registry["host"],
            registry.get("username") or "-",
            "yes" if registry.get("ca_certificate") else "-",
            ago(registry.get("create_time"), now=now),
        )
        for registry in registries
    ]
    return columns(("REGISTRY", "USERNAME", "OWN CA", "ADDED"), rows)


def machines_table(machines: Sequence[dict[str, Any]], *, now: datetime) -> str:
    """The table of `uhm ps`."""
    rows = [
        (
            short_id(machine["id"]),
            machine.get("image_reference") or short_id(machine.get("image_id", "")),
            _shortened(" ".join(machine.get("command", []))),
            ago(machine.get("create_time"), now=now),
            machine_status(machine, now=now),
            machine_ports(machine),
            machine.get("name", ""),
        )
        for machine in machines
    ]
    return columns(("MACHINE ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"), rows)


def machine_status(machine: dict[str, Any], *, now: datetime) -> str:
    """`running 3 minutes`, `exited (1) 2 hours ago`, `failed`."""
    status: str = machine.get("status", "")
    if status == "running":
        return f"running {age(machine.get('start_time'), now=now)}".rstrip()
    if machine.get("exit_code") is not None:
        status = f"{status} ({machine['exit_code']})"
    ended = ago(machine.get("end_time"), now=now)
    return f"{status} {ended}".rstrip()


def machine_ports(machine: dict[str, Any]) -> str:
    """All published ports of a machine."""
    return ", ".join(port_text(port) for port in machine.get("ports", []))


def port_text(port: dict[str, Any]) -> str:
    """`127.0.0.1:8080->80/tcp`."""
    address = port.get("host_address") or "127.0.0.1"
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port.get('host_port', 0)}->{port.get('guest_port', 0)}/{port.get('protocol') or 'tcp'}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_COMMAND else f"{text[: LONGEST_COMMAND - 1]}…"
