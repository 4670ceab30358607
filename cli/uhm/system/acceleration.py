"""Whether guests run with KVM here: the machines service finds out by starting one, and notes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uhm.system.layout import Layout

__all__ = ["kvm_works"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def kvm_works(layout: Layout) -> bool | None:
    """None where nobody has tried since this machine booted."""
    try:
        noted = json.loads((layout.state_dir / "machines" / "host.json").read_text())
        return bool(noted["kvm"]) if noted["boot_id"] == BOOT_ID.read_text().strip() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
