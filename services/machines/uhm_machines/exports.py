"""The read-only export of images' disks: one qemu-storage-daemon, NBD on a Unix socket, one export per disk in use.

QEMU cannot snapshot a machine with a VMDK descriptor in its graph, and a hundred machines need not each open every
layer; so one daemon opens them, and machines see a plain block device under the disk's digest.

The daemon outlives this service, which finds it again. Where it dies it is started anew with the same exports; the
machines' reads wait for that (`reconnect-delay`, uhm_machines.qemu.argv).

    exports/                0700
      nbd.sock qmp.sock     listened on by the daemon
      lock pid exit qemu.log    see uhm_machines.qemu.process
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

from uhm_common.logs import get_logger
from uhm_machines.disks import export_name
from uhm_machines.errors import QmpFailed, QmpRefused, StartFailed
from uhm_machines.files import listen_unix
from uhm_machines.qemu.process import DetachedProcess, read_log
from uhm_machines.qemu.qmp import QmpSession, qmp_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uhm_common.artifacts import ArtifactStore

__all__ = ["ImageExports"]

log = get_logger()

DAEMON: Final = "qemu-storage-daemon"
_ANY_NUMBER: Final = "max-connections=0"
"""Of machines: QEMU takes 100 by default, since it was found that clients can exhaust its file descriptors."""
_QMP_SECONDS: Final = 20.0
_RESTART_SECONDS: Final = 0.5
_REMOVE_TRIES: Final = 20
_REMOVE_POLL_SECONDS: Final = 0.05
_NODE_DIGITS: Final = 24


class ImageExports:
    """Which disks are exported, because which machines use them; and the daemon that does it."""

    def __init__(self, directory: Path, *, artifacts: ArtifactStore) -> None:
        self._directory = directory
        self._artifacts = artifacts
        self._users: dict[str, set[str]] = {}
        self._daemon: DetachedProcess | None = None
        self._changing = asyncio.Lock()

    @property
    def socket(self) -> Path:
        """Where the daemon listens for NBD clients."""
        return self._directory / "nbd.sock"

    def socket_seen_from(self, directory: Path) -> str:
        """The path of `socket` relative to a directory: short, however deep the two are."""
        return os.path.relpath(self.socket.absolute(), directory.absolute())

    async def adopt(self, users: dict[str, set[str]]) -> None:
        """Takes over the daemon of a former run. `users` are the machines that live, by the disk they use."""
        async with self._changing:
            self._users = {digest: set(machines) for digest, machines in users.items()}
            self._daemon = await DetachedProcess.adopt(self._directory)
            if self._daemon is None:
                if self._users:
                    await self._start()
                return
            async with self._session() as session:
                wanted = {_node_name(digest): digest for digest in self._users}
                for name in await _exported(session) - wanted.keys():
                    await _remove(session, name)
                for digest in wanted.values():
                    await self._add(session, digest)

    async def acquire(self, digest: str, *, machine_id: str) -> None:
        """Sees to it that a disk is exported while the machine uses it. Raises StartFailed, QmpFailed.

        A disk that another machine uses is exported already, or will be again.
        """
        if digest in self._users and self._daemon is not None and not self._changing.locked():
            self._users[digest].add(machine_id)
            return
        async with self._changing:
            self._users.setdefault(digest, set()).add(machine_id)
            try:
                await self._see_to_export(digest)
            except BaseException:
                self._forget(digest, machine_id)
                raise

    async def release(self, digest: str, *, machine_id: str) -> None:
        """Ends a machine's use; the last one's ends the export."""
        async with self._changing:
            if machine_id not in self._users.get(digest, ()):
                return
            self._forget(digest, machine_id)
            if digest in self._users or self._daemon is None:
                return
            try:
                async with self._session() as session:
                    await _remove(session, _node_name(digest))
            except QmpFailed as error:
                log.warning("export.not_removed", disk=digest, error=str(error))

    async def keep(self) -> None:
        """Starts the daemon anew whenever it has died while machines need it. Runs until cancelled."""
        while True:
            if (daemon := self._daemon) is not None:
                status = await daemon.ended()
                log.error("export.daemon_died", status=str(status), output=read_log(self._directory))
            async with self._changing:
                if self._daemon is daemon:
                    self._drop_daemon()
                if self._daemon is None and self._users:
                    try:
                        await self._start()
                    except (StartFailed, QmpFailed) as error:
                        log.warning("export.daemon_not_started", error=str(error))
            if self._daemon is None:
                await asyncio.sleep(_RESTART_SECONDS)

    async def stop(self) -> None:
        """Ends the daemon."""
        async with self._changing:
            if self._daemon is None:
                return
            daemon = self._daemon
            try:
                async with self._session() as session:
                    await session.quit()
                async with asyncio.timeout(_QMP_SECONDS):
                    await daemon.ended()
            except (QmpFailed, TimeoutError):
                daemon.kill()
                await daemon.ended()
            self._drop_daemon()

    def close(self) -> None:
        """Lets go of the daemon, which goes on."""
        self._drop_daemon()

    def _drop_daemon(self) -> None:
        if self._daemon is not None:
            self._daemon.close()
        self._daemon = None

    def _forget(self, digest: str, machine_id: str) -> None:
        self._users[digest].discard(machine_id)
        if not self._users[digest]:
            del self._users[digest]

    def _session(self) -> contextlib.AbstractAsyncContextManager[QmpSession]:
        return qmp_session(self._directory / "qmp.sock", within=_QMP_SECONDS)

    async def _see_to_export(self, digest: str) -> None:
        if self._daemon is not None:
            try:
                async with self._session() as session:
                    await self._add(session, digest)
            except QmpRefused:
                raise
            except QmpFailed:  # it has died, or hangs; machines reconnect to the next
                self._daemon.kill()
                await self._daemon.ended()
                self._drop_daemon()
        if self._daemon is None:
            await self._start()

    async def _start(self) -> None:
        """Starts the daemon with all exports that are needed now, and waits until it serves.

        They are on its command line, because a machine that reconnects must not find the server without them. Where one
        of them keeps it from starting, the others are added one by one.
        """
        try:
            await self._spawn(list(self._users))
        except StartFailed as error:
            log.warning("export.one_is_broken", error=str(error))
            await self._spawn([])
            async with self._session() as session:
                for digest in self._users:
                    with contextlib.suppress(QmpRefused):
                        await self._add(session, digest)

    async def _spawn(self, digests: Sequence[str]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with listen_unix(self.socket) as nbd, listen_unix(self._directory / "qmp.sock") as qmp:
            argv = [
                DAEMON,
                *("--chardev", f"socket,id=qmp,fd={qmp.fileno()},server=on,wait=off"),
                *("--monitor", "chardev=qmp"),
                *("--nbd-server", f"addr.type=fd,addr.str={nbd.fileno()},{_ANY_NUMBER}"),
            ]
            for digest in digests:
                argv += ["--blockdev", json.dumps(self._node(digest)), "--export", json.dumps(_export(digest))]
            daemon = await DetachedProcess.spawn(self._directory, argv, pass_fds=(nbd.fileno(), qmp.fileno()))
        try:
            async with self._session() as session:
                await _exported(session)
        except BaseException as error:
            daemon.kill()
            await daemon.ended()
            daemon.close()
            if isinstance(error, QmpFailed):
                raise StartFailed(f"{DAEMON} did not come up: {read_log(self._directory)}") from error
            raise
        self._daemon = daemon
        log.info("export.daemon_started", pid=daemon.pid, exports=len(digests))

    async def _add(self, session: QmpSession, digest: str) -> None:
        """Exports a disk, where it is not."""
        name = _node_name(digest)
        nodes = await session.execute("query-named-block-nodes", {"flat": True})
        if name not in {node["node-name"] for node in nodes}:
            await session.execute("blockdev-add", self._node(digest))
        if name not in await _exported(session):
            await session.execute("block-export-add", _export(digest))

    def _node(self, digest: str) -> dict[str, Any]:
        """The arguments of blockdev-add."""
        descriptor = str((self._artifacts.disk(digest) / "disk.vmdk").absolute())
        file = {"driver": "file", "filename": descriptor, "read-only": True}
        return {"driver": "vmdk", "node-name": _node_name(digest), "read-only": True, "file": file}


def _export(digest: str) -> dict[str, Any]:
    """The arguments of block-export-add."""
    name = _node_name(digest)
    return {"type": "nbd", "id": name, "node-name": name, "name": export_name(digest)}


def _node_name(digest: str) -> str:
    """Names a disk's node and its export in the daemon: begins with a letter, at most 31 characters."""
    return f"disk-{export_name(digest)[:_NODE_DIGITS]}"


async def _exported(session: QmpSession) -> set[str]:
    return {export["id"] for export in await session.execute("query-block-exports")}


async def _remove(session: QmpSession, name: str) -> None:
    """Ends an export and closes its files, a moment later: the daemon lets go of clients first."""
    await session.execute("block-export-del", {"id": name, "mode": "hard"})
    for attempt in range(1, _REMOVE_TRIES + 1):
        try:
            await session.execute("blockdev-del", {"node-name": name})
        except QmpFailed:
            if attempt == _REMOVE_TRIES:
                raise
            await asyncio.sleep(_REMOVE_POLL_SECONDS)
        else:
            return
