"""Spare machines: loaded from a snapshot and paused before anyone asks, so that a start only lets one run on.

A spare is a machine without a record, in a directory under the id that it will have: what a crash leaves of one is
swept as any directory without a record is. It takes no processor time, and little memory of its own. There is one for
each of the snapshots used last, as many as the settings allow; a used one is replaced a moment later, when the machine
that took it has had the processor for its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from uhm_common.errors import UhmError
from uhm_common.logs import get_logger
from uhm_machines.files import MachineFiles
from uhm_machines.machine import StartKind
from uhm_machines.starts.spawner import ended_on_error

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_machines.disks import ImageDisk
    from uhm_machines.exports import ImageExports
    from uhm_machines.qemu.argv import BootFiles
    from uhm_machines.shape import Shape
    from uhm_machines.snapshots.store import Snapshot, SnapshotStore
    from uhm_machines.starts.restorer import Restorer
    from uhm_machines.starts.spawner import Running

__all__ = ["Spare", "SpareKind", "Spares"]

log = get_logger()

_SETTLE_SECONDS: Final = 0.5
"""From a start to the spare that replaces the one it took."""
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpareKind:
    """What a spare is made of."""

    snapshot: Snapshot
    shape: Shape
    boot: BootFiles
    disk: ImageDisk | None
    """The image's, of a `ready` snapshot; that of any image, to rehearse a template with; None where none is known."""

    @property
    def is_ready(self) -> bool:
        """Whether it is made of an image's running service."""
        return self.snapshot.kind is StartKind.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A machine that waits."""

    machine_id: str
    kind: SpareKind
    running: Running


class Spares:
    """Makes spares in the background, one at a time, and hands them out."""

    def __init__(
        self, directory: Path, *, restorer: Restorer, exports: ImageExports, store: SnapshotStore, limit: int
    ) -> None:
        self._directory = directory
        self._restorer = restorer
        self._exports = exports
        self._store = store
        self._limit = limit
        self._wanted: dict[str, SpareKind] = {}
        """By the snapshot's key, the most recently wanted last."""
        self._waiting: dict[str, Spare] = {}
        self._changed = asyncio.Event()
        self._used_at = 0.0

    def want(self, kind: SpareKind) -> None:
        """Keeps a spare of this kind from now on, at the cost of the kind that was not used for longest."""
        former = self._wanted.pop(kind.snapshot.key, None)
        if former is not None and kind.disk is None:
            kind = replace(kind, disk=former.disk)
        self._wanted[kind.snapshot.key] = kind
        while len(self._wanted) > self._limit:
            del self._wanted[next(iter(self._wanted))]
        self._changed.set()

    def want_made(self, snapshot: Snapshot, shape: Shape, disk: ImageDisk) -> None:
        """The same of a snapshot that was just made from this disk."""
        known = disk if disk.digest else None
        self.want(SpareKind(snapshot=snapshot, shape=shape, boot=disk.boot, disk=known))

    def claim(self, key: str) -> Spare | None:
        """Takes the spare of a snapshot, where one waits; the caller sees to its end."""
        self._used_at = asyncio.get_running_loop().time()
        self._changed.set()
        spare = self._waiting.get(key)
        if spare is None or not spare.running.process.alive:  # one that has died is cleaned up by `run`
            return None
        return self._waiting.pop(key)

    async def discard(self, spare: Spare) -> None:
        """Ends a spare and removes all that there is of it."""
        await spare.running.end()
        await self._clean(spare.machine_id, spare.kind)

    async def run(self) -> None:
        """Keeps what is wanted there, and nothing else, until cancelled."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):  # wait_for can lose a cancellation (bpo-37658)
                        await self._changed.wait()
                self._changed.clear()
                await self._discard_unwanted()
                await self._settled()
                await self._make_missing()
        finally:
            await asyncio.shield(self.close())

    async def close(self) -> None:
        """Ends all of them."""
        self._wanted.clear()
        while self._waiting:
            _, spare = self._waiting.popitem()
            await self.discard(spare)

    async def _settled(self) -> None:
        """Waits until no spare was taken for a moment."""
        loop = asyncio.get_running_loop()
        while loop.time() < (due := self._used_at + _SETTLE_SECONDS):  # noqa: ASYNC110 - nothing tells that nothing came
            await asyncio.sleep(due - loop.time())

    async def _discard_unwanted(self) -> None:
        for key in [key for key in self._wanted if self._store.find(key) is None]:
            del self._wanted[key]
        for key, spare in list(self._waiting.items()):
            if self._waiting.get(key) is not spare:  # it was claimed while another was being discarded
                continue
            wanted = self._wanted.get(key)
            can_rehearse = spare.kind.disk is None and wanted is not None and wanted.disk is not None
            if wanted is None or can_rehearse or not spare.running.process.alive:
                del self._waiting[key]
                await self.discard(spare)

    async def _make_missing(self) -> None:
        for key, kind in list(self._wanted.items()):
            if key in self._waiting or key not in self._wanted:
                continue
            try:
                spare = await self._make(kind)
            except (UhmError, OSError) as error:
                log.warning("spare.not_made", snapshot=key[:12], error=str(error))
                self._wanted.pop(key, None)  # the next start that could have used it wants it again
                continue
            self._waiting[key] = spare

    async def _make(self, kind: SpareKind) -> Spare:
        machine_id = uuid.uuid4().hex
        try:
            if kind.disk is not None:
                await self._exports.acquire(kind.disk.digest, machine_id=machine_id)
            running = await self._restorer.load(
                MachineFiles(self._directory / machine_id),
                kind.snapshot,
                shape=kind.shape,
                boot=kind.boot,
                disk=kind.disk if kind.is_ready else None,
            )
            if kind.disk is not None:
                async with ended_on_error(running):
                    await self._restorer.rehearse(running, kind.snapshot.kind, kind.disk, machine_id=machine_id)
                    if not kind.is_ready:
                        await self._exports.release(kind.disk.digest, machine_id=machine_id)
        except BaseException:
            await self._clean(machine_id, kind)
            raise
        return Spare(machine_id=machine_id, kind=kind, running=running)

    async def _clean(self, machine_id: str, kind: SpareKind) -> None:
        await asyncio.to_thread(MachineFiles(self._directory / machine_id).remove)
        if kind.disk is not None:
            await self._exports.release(kind.disk.digest, machine_id=machine_id)
