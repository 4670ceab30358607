"""Collecting garbage: layers, disks and bases that no image needs, once they have been needed by none for a while.

*What is needed* is found anew each time, by a mark pass: images that are ready or being built name their layers and
their disk, leases name disks, a disk names its layers and its base, and each worker holds the base that it composes on.
Counters of references would be quicker to read, but one that a crash left wrong would stay wrong; a mark pass cannot
drift, and takes milliseconds for thousands of images.

*For a while*: what is found to be without use is noted with the time (`builder_unneeded`) and deleted by a pass that
comes after the grace period, so that whoever makes the image again finds it. What is needed again by then is forgotten.

*Beside builds.* A build writes what it needs into its row before it looks whether the store has it, and between the two
holds the store's lock shared for a moment (`Pipeline`). A pass finds its candidates without any lock; then it takes the
lock exclusively, reads what has been written and leased since, and moves the others out of the store, which are two
queries and some renames. So a build has either written what it needs before that, which spares it, or looks after the
move, and makes what is gone. The same lock orders leases: they are taken under it, and read under it. Nothing waits for
builds to end, and no build waits for files to be deleted: that comes after the lock.

*A disk goes at the latest with the first of its parts*, so that one that is there can be used as it is.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from uhm_builder.disk import load_disk
from uhm_builder.models import UnneededRow
from uhm_builder.threads import entered, in_thread
from uhm_common.artifacts import Artifact, Kind
from uhm_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable
    from pathlib import Path

    from uhm_builder.store import ImageStore, InUse
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.database import Database

__all__ = ["Collected", "Collector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a pass has deleted, or would."""

    bytes: int = 0
    layers: int = 0
    disks: int = 0
    bases: int = 0


class Collector:
    """Deletes from the store what no image needs. Any number of them may work at once, also in several processes."""

    def __init__(
        self, *, artifacts: ArtifactStore, database: Database, store: ImageStore, grace_seconds: float
    ) -> None:
        self._artifacts = artifacts
        self._database = database
        self._store = store
        self._grace_ns = int(grace_seconds * 1e9)
        self._one_of_us = asyncio.Lock()

    async def collect(self, *, at_once: bool = False) -> Collected:
        """Deletes what has been without use for the grace period; with `at_once`, whatever is without use now."""
        in_use = await self._store.in_use()
        unneeded = await in_thread(partial(self._without_use, in_use))
        since = await self._noted(unneeded)
        latest = time.time_ns() - (0 if at_once else self._grace_ns)
        due = {artifact for artifact in unneeded if since[artifact] <= latest}
        if not due:
            return Collected()
        async with entered(self._artifacts.stage()) as trash, self.undisturbed():
            newly = await self._store.in_use_since(in_use)
            doomed = await in_thread(partial(self._doomed, due, unneeded, newly))
            return await in_thread(partial(self._move, doomed, trash))

    async def unneeded(self, *, without: Collection[str] = ()) -> set[Artifact]:
        """What no image needs, or would need if those with the ids `without` were not there."""
        in_use = await self._store.in_use(without=without)
        return await in_thread(partial(self._without_use, in_use))

    async def measure(self, artifacts: Iterable[Artifact]) -> Collected:
        """How many these are, and how many bytes deleting them would free."""
        return await in_thread(lambda: self._measured(set(artifacts)))

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """No disk is composed or leased, and nothing is collected, inside of the block; keep it short.

        One of this process waits for the store's lock at a time, or those who wait would have all of its threads.
        """
        async with self._one_of_us, entered(self._artifacts.disks(exclusive=True)):
            yield

    def _doomed(self, due: set[Artifact], unneeded: set[Artifact], newly: InUse) -> set[Artifact]:
        """What is due and not needed since the mark either, with all disks that have something of it."""
        disks = {artifact: self._parts(artifact) for artifact in unneeded if artifact.kind is Kind.DISK}
        leased = {disk for disk in disks if self._artifacts.lease_holders(disk.digest)}
        spared = _named(newly) | leased
        for disk in [artifact for artifact in spared if artifact.kind is Kind.DISK]:
            spared |= self._parts(disk)
        doomed = due - spared
        doomed -= {base for base in doomed if base.kind is Kind.BASE and self._artifacts.is_base_used(base.digest)}
        return doomed | {disk for disk, parts in disks.items() if disk not in spared and parts & doomed}

    def _move(self, doomed: set[Artifact], trash: Path) -> Collected:
        measured = self._measured(doomed)
        # Disks first: a crash on the way leaves no disk whose parts are gone.
        for artifact in sorted(doomed, key=lambda artifact: artifact.kind is not Kind.DISK):
            self._artifacts.take_out(artifact, into=trash)
        return measured

    def _measured(self, artifacts: set[Artifact]) -> Collected:
        def count(kind: Kind) -> int:
            return sum(artifact.kind is kind for artifact in artifacts)

        return Collected(
            bytes=sum(self._artifacts.size(artifact) for artifact in artifacts),
            layers=count(Kind.LAYER),
            disks=count(Kind.DISK),
            bases=count(Kind.BASE),
        )

    def _without_use(self, in_use: InUse) -> set[Artifact]:
        stored = self._artifacts.stored()
        needed = _named(in_use)
        for artifact in stored - needed:
            if artifact.kind is Kind.DISK and self._artifacts.lease_holders(artifact.digest):
                needed |= {artifact} | self._parts(artifact)
        return stored - needed - self._bases_in_use(stored, needed)

    def _bases_in_use(self, stored: set[Artifact], needed: set[Artifact]) -> set[Artifact]:
        bases = {artifact for artifact in stored if artifact.kind is Kind.BASE}
        held = {base for base in bases if self._artifacts.is_base_used(base.digest)}
        if held == bases:  # nearly always, and then no disk has to be asked
            return held
        disks = (artifact for artifact in stored & needed if artifact.kind is Kind.DISK)
        return held.union(*(self._parts(disk) & bases for disk in disks))

    def _parts(self, disk: Artifact) -> set[Artifact]:
        """The layers and the base of a disk; nothing where it is not there."""
        try:
            record = load_disk(self._artifacts, disk.digest)
        except NotFound:
            return set()
        layers = {Artifact(kind=Kind.LAYER, digest=digest) for digest in record.layers}
        return layers | {Artifact(kind=Kind.BASE, digest=record.base)}

    async def _noted(self, unneeded: set[Artifact]) -> dict[Artifact, int]:
        """Since when each has been without use, which begins now for those of which it was not known."""
        async with self._database.read() as session:
            rows = (await session.scalars(select(UnneededRow))).all()
        known = {Artifact(kind=Kind(row.kind), digest=row.digest): row.since for row in rows}
        if known.keys() == unneeded:
            return known
        now = time.time_ns()
        async with self._database.write() as session:
            await self._database.serialise(session, UnneededRow.__tablename__)
            rows = (await session.scalars(select(UnneededRow))).all()
            known = {Artifact(kind=Kind(row.kind), digest=row.digest): row.since for row in rows}
            for artifact in known.keys() - unneeded:
                matches = (UnneededRow.kind == artifact.kind, UnneededRow.digest == artifact.digest)
                await session.execute(delete(UnneededRow).where(*matches))
            added = [
                {"kind": artifact.kind, "digest": artifact.digest, "since": now} for artifact in unneeded - known.keys()
            ]
            if added:
                await session.execute(insert(UnneededRow), added)
        return {artifact: known.get(artifact, now) for artifact in unneeded}


def _named(in_use: InUse) -> set[Artifact]:
    """What rows name."""
    layers = {Artifact(kind=Kind.LAYER, digest=digest) for digest in in_use.layers}
    return layers | {Artifact(kind=Kind.DISK, digest=digest) for digest in in_use.disks}
