"""How much content is read, or passed on, at a time.

Large enough that the system call, the thread or the hash update around a piece costs next to nothing, small enough that
every layer of every build may have some at once.
"""

from __future__ import annotations

__all__ = ["PIECE"]

PIECE = 1 << 20
