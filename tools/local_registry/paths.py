"""Where things are in the source tree and below `build/`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUILD_TOOLS", "DIRECTORY", "EXAMPLES"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BUILD_TOOLS = ROOT / "build" / "tools"
DIRECTORY = ROOT / "build" / "registry"
