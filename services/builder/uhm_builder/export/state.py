"""A smaller state than the base's, for disks whose files are as large as the disks: made once and kept with the base.

The guest grows it to its disk at its first boot, as it does the base's.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from uhm_builder.base import STATE_JOURNAL_MIB
from uhm_common.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_builder.base import Base
    from uhm_common.artifacts import ArtifactStore

__all__ = ["SMALL_STATE", "ensure_small_state"]

SMALL_STATE = 1 << 30
"""Bytes."""

_SECONDS = 60.0
_NAMESPACE = uuid.UUID("3f5b8f0e-77a1-5d0a-8c53-5a1a0f6f6a0b")


def ensure_small_state(store: ArtifactStore, base: Base) -> Path:
    """The small state of a base, made unless it is there; mke2fs(8) needs no mount for it. Raises ProcessFailed."""
    final = store.base(base.digest) / "small.raw"
    if final.exists():
        return final
    with store.making(final), store.stage() as stage:
        staged = stage / final.name
        with staged.open("wb") as file:
            file.truncate(SMALL_STATE)
        identity = str(uuid.uuid5(_NAMESPACE, base.digest))
        options = ("-t", "ext4", "-L", "uhm-state", "-U", identity, "-m", "0", "-J", f"size={STATE_JOURNAL_MIB}")
        run(
            ["mke2fs", "-q", "-F", *options, "-E", f"lazy_itable_init=1,hash_seed={identity}", staged],
            timeout=_SECONDS,
            env={"E2FSPROGS_FAKE_TIME": "1"},  # the same bytes whenever it is made; 0 would be now
        )
        store.commit(staged, final)
    return final
