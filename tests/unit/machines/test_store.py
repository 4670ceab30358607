from dataclasses import fields, replace

import pytest

from uhm_common.database import Database
from uhm_common.idempotency import IdempotencyKeys, Key
from uhm_machines.errors import AmbiguousId, MachineNotFound, NameTaken
from uhm_machines.machine import Accelerator, Machine, Phase, PortMapping, StartKind, Transport, Workload
from uhm_machines.models import IDEMPOTENCY_KEYS, MACHINES, VERSION_TABLE, Base
from uhm_machines.states import Status
from uhm_machines.store import MachineStore


def a_machine(machine_id="0" * 32, **changes):
    machine = Machine(
        id=machine_id,
        name=changes.pop("name", f"m-{machine_id}"),
        owner="anna",
        image_id="i",
        image_reference="nginx:latest",
        disk_digest="sha256:" + "a" * 64,
        workload=Workload(
            argv=("sh", "-c"), env=("A=1",), working_dir="", user="", hostname="h", stop_signal=15, watched_ports=(80,)
        ),
        memory_mib=256,
        vcpus=1,
        ports=(PortMapping(host_address="127.0.0.1", host_port=1, guest_port=2, transport=Transport.UDP),),
        auto_remove=False,
        created_ns=1_700_000_000_000_000_000,
    )
    return replace(machine, **changes)


@pytest.fixture
async def store(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'machines.db'}")
    made = MachineStore(database)
    await made.migrate()
    await made.migrate()
    yield made
    await database.close()


async def test_a_machine_comes_back_as_it_was(store):
    machine = a_machine()
    await store.insert(machine)
    assert await store.find("anna", machine.id) == machine
    changed = replace(
        machine,
        status=Status.EXITED, exit_code=3, accelerator=Accelerator.TCG, started_ns=1, ended_ns=2, pid=None,
        kernel="6.1 minimal", start_kind=StartKind.READY, start_reason="Fast.",
        phases=(Phase(name="kernel", start_ms=1.5, duration_ms=2.25),), console_tail="x\ny",
    )  # fmt: skip
    await store.update(changed)
    assert await store.all() == [changed]
    await store.delete(machine.id)
    await store.update(changed)
    assert await store.all() == []


async def test_one_that_is_taken_back_was_never_made(store):
    keys = IdempotencyKeys(IDEMPOTENCY_KEYS, database=store._database)
    for number, forget in enumerate([store.delete, store.take_back]):
        key, machine = Key("anna", "/m", f"k{number}"), a_machine(str(number) * 32)
        claim = await keys.take(key, b"hash")
        await store.insert(machine, claim=claim)
        await forget(machine.id)
        await keys.release(claim)
        assert (await keys.take(key, b"hash")).resource == ("" if forget == store.take_back else machine.id)
    assert await store.all() == []


async def test_an_owners_machines_up_to_a_time(store):
    for number in range(3):
        await store.insert(a_machine(str(number) * 32, created_ns=number))
    await store.insert(a_machine("3" * 32, owner="ben", created_ns=0))

    assert [machine.created_ns for machine in await store.owned("anna", before=2)] == [0, 1]


async def test_finding(store):
    one, two = a_machine("ab" * 16), a_machine("ac" * 16, name="ab")
    await store.insert(one)
    await store.insert(two)
    assert await store.find("anna", "aba") == one
    assert await store.find("anna", "ab") == two  # a name goes before a prefix
    assert await store.find("anna", one.id) == one
    with pytest.raises(AmbiguousId):
        await store.find("anna", "a")
    for owner, reference in (("ben", one.id), ("anna", "ff"), ("anna", ""), ("anna", "%"), ("anna", "_b")):
        with pytest.raises(MachineNotFound):
            await store.find(owner, reference)


async def test_names_are_the_owners(store):
    await store.insert(a_machine(name="x"))
    await store.insert(a_machine("1" * 32, name="x", owner="ben"))
    with pytest.raises(NameTaken, match="'x'"):
        await store.insert(a_machine("2" * 32, name="x"))


async def test_pages(store):
    machines = [a_machine(f"{number:032x}", created_ns=number // 2) for number in range(7)]
    for machine in machines:
        await store.insert(machine)
    await store.insert(a_machine("f" * 32, owner="ben"))
    seen, before, sizes = [], None, []
    while page := await store.page("anna", limit=3, before=before, include_ended=True):
        seen += page
        sizes.append(len(page))
        before = (page[-1].created_ns, page[-1].id)
    assert seen == machines[::-1]
    assert sizes == [3, 3, 1]


async def test_what_is_listed(store):
    for number, (status, auto_remove) in enumerate(
        [(Status.RUNNING, True), (Status.EXITED, False), (Status.FAILED, True), (Status.CREATED, False)]
    ):
        await store.insert(a_machine(f"{number:032x}", status=status, auto_remove=auto_remove))

    async def listed(**options):
        page = await store.page("anna", limit=10, before=None, **options)
        return {machine.status for machine in page}

    assert await listed(include_ended=False) == {Status.RUNNING, Status.CREATED}
    assert await listed(include_ended=True) == {Status.RUNNING, Status.CREATED, Status.EXITED}


async def test_the_migrations_make_what_the_models_say(store):
    def differences(connection):
        from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - it is slow to import
        from alembic.migration import MigrationContext  # noqa: PLC0415

        options = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, kind, _: kind != "table" or name != VERSION_TABLE,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)

    async with store._database.read() as session:
        assert await (await session.connection()).run_sync(differences) == []


def test_each_field_of_a_machine_has_its_column():
    assert [column.name for column in MACHINES.columns] == [field.name for field in fields(Machine)]
