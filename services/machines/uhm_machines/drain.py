"""`python -m uhm_machines.drain`: ends all machines and the export daemon, after the service was stopped.

What `uhm down` calls. Machines get a few seconds to end by themselves, all at once; none is left.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from uhm_common.bootstrap import main
from uhm_common.errors import FailedPrecondition
from uhm_machines.app import open_parts
from uhm_machines.settings import Settings

__all__ = ["drain"]

GRACE_SECONDS: Final = 5.0
_WAIT_FOR_SERVICE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


async def drain(settings: Settings) -> None:
    """Ends everything. Raises FailedPrecondition where the service still runs after ten seconds."""
    deadline = time.monotonic() + _WAIT_FOR_SERVICE_SECONDS
    while True:
        try:
            async with open_parts(settings) as parts:
                await parts.supervisor.stop_all(grace=GRACE_SECONDS)
                await parts.exports.stop()
        except FailedPrecondition:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


if __name__ == "__main__":
    main("machines-drain", Settings, drain)
