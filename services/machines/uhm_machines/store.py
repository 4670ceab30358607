"""Machines in the database."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from uhm_common.idempotency import Claim, taken_back
from uhm_machines.errors import AmbiguousId, MachineNotFound, NameTaken
from uhm_machines.machine import Accelerator, Machine, Phase, PortMapping, StartKind, Transport, Workload
from uhm_machines.models import IDEMPOTENCY_KEYS, MACHINES, VERSION_TABLE, Base
from uhm_machines.states import ENDED, Status

if TYPE_CHECKING:
    from sqlalchemy import Select

    from uhm_common.database import Database

__all__ = ["MachineStore"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_NO_CLAIM = Claim()
_COLUMNS = tuple(field.name for field in fields(Machine))


class MachineStore:
    """Reads and writes whole machines; knows nothing of what they do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def migrate(self) -> None:
        """Brings the schema up to date."""
        await self._database.migrate(migrations=_MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)

    async def insert(self, machine: Machine, *, claim: Claim = _NO_CLAIM) -> None:
        """Adds a machine, and notes so in the claim. Raises NameTaken where the owner has one of that name."""
        try:
            async with self._database.write() as session:
                await session.execute(insert(MACHINES).values(_to_row(machine)))
                await claim.made(session, machine.id)
        except IntegrityError as error:
            raise NameTaken(machine.name) from error

    async def update(self, machine: Machine) -> None:
        """Writes a machine that exists; one that was deleted meanwhile stays deleted."""
        row = _to_row(machine)
        async with self._database.write() as session:
            await session.execute(update(MACHINES).where(MACHINES.c.id == machine.id).values(row))

    async def delete(self, machine_id: str) -> None:
        """Forgets a machine; one that does not exist is forgotten already."""
        async with self._database.write() as session:
            await session.execute(delete(MACHINES).where(MACHINES.c.id == machine_id))

    async def take_back(self, machine_id: str) -> None:
        """Forgets a machine, also where an idempotency key has it as what was made."""
        async with self._database.write() as session:
            await session.execute(delete(MACHINES).where(MACHINES.c.id == machine_id))
            await taken_back(session, IDEMPOTENCY_KEYS, machine_id)

    async def all(self) -> list[Machine]:
        """Every owner's machines, the oldest first."""
        return await self._select(select(MACHINES).order_by(MACHINES.c.created_ns, MACHINES.c.id))

    async def owned(self, owner: str, *, before: int) -> list[Machine]:
        """An owner's machines that were made before that time, the oldest first."""
        owned = select(MACHINES).where(MACHINES.c.owner == owner, MACHINES.c.created_ns < before)
        return await self._select(owned.order_by(MACHINES.c.created_ns, MACHINES.c.id))

    async def get(self, machine_id: str) -> Machine | None:
        """The machine of that id, if there is one."""
        found = await self._select(select(MACHINES).where(MACHINES.c.id == machine_id))
        return found[0] if found else None

    async def find(self, owner: str, reference: str) -> Machine:
        """An owner's machine by its id, its name or a unique prefix of its id, in this order of preference.

        Raises MachineNotFound, also for another's, and AmbiguousId.
        """
        owned = select(MACHINES).where(MACHINES.c.owner == owner)
        exact = await self._select(owned.where(or_(MACHINES.c.id == reference, MACHINES.c.name == reference)))
        if exact:
            return next((machine for machine in exact if machine.id == reference), exact[0])
        if not reference:
            raise MachineNotFound(reference)
        found = await self._select(owned.where(MACHINES.c.id.startswith(reference, autoescape=True)).limit(2))
        if not found:
            raise MachineNotFound(reference)
        if len(found) > 1:
            raise AmbiguousId(reference)
        return found[0]

    async def page(
        self, owner: str, *, limit: int, before: tuple[int, str] | None, include_ended: bool
    ) -> list[Machine]:
        """An owner's machines, the newest first: with `before`, those made before that time, or then with a lower id.

        Machines that are deleted when they end are not listed once they have.
        """
        query = select(MACHINES).where(MACHINES.c.owner == owner)
        ended = MACHINES.c.status.in_([status.value for status in ENDED])
        query = query.where(~and_(ended, MACHINES.c.auto_remove) if include_ended else ~ended)
        if before is not None:
            created_ns, machine_id = before
            older = or_(
                MACHINES.c.created_ns < created_ns,
                and_(MACHINES.c.created_ns == created_ns, MACHINES.c.id < machine_id),
            )
            query = query.where(older)
        return await self._select(query.order_by(MACHINES.c.created_ns.desc(), MACHINES.c.id.desc()).limit(limit))

    async def _select(self, query: Select[Any]) -> list[Machine]:
        async with self._database.read() as session:
            rows = (await session.execute(query)).all()
        return [_from_row(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def _to_row(machine: Machine) -> dict[str, Any]:
    return asdict(machine)


def _from_row(row: Any) -> Machine:
    values = {name: row[name] for name in _COLUMNS}
    workload = values["workload"]
    tuples = {name: tuple(workload[name]) for name in ("argv", "env", "watched_ports")}
    accelerator = values["accelerator"]
    return Machine(
        **values
        | {
            "workload": Workload(**workload | tuples),
            "ports": tuple(PortMapping(**port | {"transport": Transport(port["transport"])}) for port in row["ports"]),
            "phases": tuple(Phase(**phase) for phase in row["phases"]),
            "status": Status(values["status"]),
            "start_kind": StartKind(values["start_kind"]),
            "accelerator": Accelerator(accelerator) if accelerator else None,
        }
    )
