"""QEMU's monitor, through the qemu.qmp library (QEMU Machine Protocol specification, docs/interop/qmp-spec).

A session is opened for a few commands and closed again: a monitor takes one client at a time, and a service that comes
back after a crash must find it free.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from qemu.qmp import ConnectError, ExecInterruptedError, QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from uhm_machines.errors import QmpFailed, QmpRefused
from uhm_machines.files import connect_unix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

__all__ = ["QmpSession", "qmp_session"]

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what goes wrong is raised


class QmpSession:
    """An open monitor."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Runs one command and answers what it returned. Raises QmpRefused, or QmpFailed where QEMU goes away."""
        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise QmpRefused(f"QEMU refused {command}: {error}") from error
        except (QMPError, OSError) as error:
            raise QmpFailed(f"QEMU went away during {command}.") from error

    async def quit(self) -> None:
        """Ends QEMU at once."""
        with contextlib.suppress(ExecInterruptedError, ExecuteError):
            await self._client.execute("quit")


@asynccontextmanager
async def qmp_session(socket_path: Path, *, within: float) -> AsyncIterator[QmpSession]:
    """Opens a monitor, waiting up to `within` seconds in all until QEMU is up and the block has ended.

    Raises QmpFailed.
    """
    client = QMPClient("uhm")
    try:
        async with asyncio.timeout(within):
            try:
                await client.connect(connect_unix(socket_path))
            except (ConnectError, OSError) as error:
                raise QmpFailed("QEMU's monitor does not answer.") from error
            yield QmpSession(client)
    except TimeoutError as error:
        raise QmpFailed(f"QEMU's monitor did not answer within {within:g} s.") from error
    finally:
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()
