"""Models and migrations say the same: alembic's comparison finds nothing to do."""

from dataclasses import fields

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from uhm_common.database import Database
from uhm_machines.machine import Machine
from uhm_machines.models import MACHINES, VERSION_TABLE, Base
from uhm_machines.store import MachineStore


async def test_migrations_make_what_the_models_say(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'machines.db'}")
    await MachineStore(database).migrate()

    def differences(session):
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(session.connection(), opts=options), Base.metadata)

    async with database.read() as session:
        assert await session.run_sync(differences) == []
    await database.close()


def test_each_field_of_a_machine_has_its_column():
    assert [column.name for column in MACHINES.columns] == [field.name for field in fields(Machine)]
