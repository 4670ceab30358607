"""`python -m uhm_machines.drain`: ends all machines and the export daemon, after the service was stopped.

What `uhm down` calls. Machines get a few seconds to end by themselves, all at once; none is left, also where the
database is out of reach: what became of them is then found out and recorded at the service's next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from uhm_common.bootstrap import main
from uhm_common.errors import FailedPrecondition, Unavailable
from uhm_common.logs import get_logger
from uhm_machines.app import open_parts, sole_owner
from uhm_machines.channel import GuestChannel, Verb
from uhm_machines.files import MachineFiles
from uhm_machines.machine import ID_PATTERN
from uhm_machines.qemu.process import DetachedProcess
from uhm_machines.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["drain"]

log = get_logger()

GRACE_SECONDS: Final = 5.0
_WAIT_FOR_SERVICE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


async def drain(settings: Settings) -> None:
    """Ends everything. Raises FailedPrecondition where the service still runs after ten seconds."""
    deadline = time.monotonic() + _WAIT_FOR_SERVICE_SECONDS
    while True:
        try:
            await _drain(settings)
        except FailedPrecondition:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _drain(settings: Settings) -> None:
    try:
        async with open_parts(settings) as parts:
            await parts.supervisor.stop_all(grace=GRACE_SECONDS)
            await parts.exports.stop()
    except (SQLAlchemyError, OSError, Unavailable) as error:
        log.warning("drain.without_records", error=str(error))
        with sole_owner(settings):
            await _end_without_records(settings)


async def _end_without_records(settings: Settings) -> None:
    """Ends what runs in the machines' directories, then what serves their disks."""
    machines = [path for path in settings.machines_dir.glob("*/") if ID_PATTERN.fullmatch(path.name)]
    await asyncio.gather(*(_end(directory) for directory in machines))
    if daemon := await DetachedProcess.adopt(settings.exports_dir):
        daemon.kill()
        await daemon.ended()
        daemon.close()


async def _end(directory: Path) -> None:
    """Has a machine's guest unmount and power off, or kills it after a few seconds."""
    process = await DetachedProcess.adopt(directory)
    if process is None:
        return
    channel = GuestChannel(MachineFiles(directory).control_socket)
    try:
        with contextlib.suppress(TimeoutError, OSError):
            await channel.send(Verb.STOP)
            await asyncio.wait_for(process.ended(), GRACE_SECONDS)
            return
        process.kill()
        await process.ended()
    finally:
        channel.close()
        process.close()


if __name__ == "__main__":
    main("machines-drain", Settings, drain)
