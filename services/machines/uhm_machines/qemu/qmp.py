"""QEMU's monitor, through the qemu.qmp library (QEMU Machine Protocol specification, docs/interop/qmp-spec).

A monitor takes one client at a time, so a session is opened for a few commands and closed again; only that of a spare
machine stays open, until the machine is used (uhm_machines.spares).
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

__all__ = ["QmpSession", "open_session", "qmp_session"]

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

    async def lend_fd(self, name: str, descriptor: int) -> None:
        """Gives QEMU a duplicate of a file descriptor, which commands then know as `fd:NAME`. Raises QmpFailed."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise QmpFailed("QEMU went away while it was given a file.") from error
        await self.execute("getfd", {"fdname": name})

    async def close(self) -> None:
        """Frees the monitor for the next client."""
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()

    async def quit(self) -> None:
        """Ends QEMU at once."""
        with contextlib.suppress(ExecInterruptedError, ExecuteError):
            await self._client.execute("quit")


async def open_session(socket_path: Path, *, within: float) -> QmpSession:
    """Opens a monitor, waiting up to `within` seconds until QEMU is up; `close` it. Raises QmpFailed."""
    client = QMPClient("uhm")
    session = QmpSession(client)
    try:
        async with asyncio.timeout(within):
            await client.connect(connect_unix(socket_path))
    except TimeoutError as error:
        await session.close()
        raise QmpFailed(f"QEMU's monitor did not answer within {within:g} s.") from error
    except (ConnectError, OSError) as error:
        await session.close()
        raise QmpFailed("QEMU's monitor does not answer.") from error
    except BaseException:
        await session.close()
        raise
    return session


@asynccontextmanager
async def qmp_session(socket_path: Path, *, within: float) -> AsyncIterator[QmpSession]:
    """Opens a monitor, waiting up to `within` seconds in all until QEMU is up and the block has ended.

    Raises QmpFailed.
    """
    session: QmpSession | None = None
    try:
        async with asyncio.timeout(within):
            session = await open_session(socket_path, within=within)
            yield session
    except TimeoutError as error:
        raise QmpFailed(f"QEMU's monitor did not answer within {within:g} s.") from error
    finally:
        if session is not None:
            await session.close()
