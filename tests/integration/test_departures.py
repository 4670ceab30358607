"""What becomes of the things of a user who was deleted, with the real NATS server and the services as processes."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager

import pytest

from tests.integration.builder_system import answering, builder_system
from tests.integration.machines_stand_ins import make_disks, running_world
from uhm_common.events import USERS_DELETED, EventBus
from uhmalguhm.builder.v1 import registry_pb2, registry_pb2_grpc
from uhmalguhm.machines.v1 import machine_pb2 as pb

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FOREVER = ["sh", "-c", "while :; do sleep 0.1; done"]


@asynccontextmanager
async def auth_service(nats_url):
    """What tells of deleted users."""
    events = EventBus(nats_url, name="test-auth")
    running = asyncio.create_task(events.run())
    try:
        await asyncio.wait_for(events.wait_connected(), 20)
        yield events
    finally:
        running.cancel()
        await asyncio.wait([running])


async def tell(events, username, *, deleted_at):
    payload = {"username": username, "deleted_at": int(deleted_at)}
    await events.publish_durably(USERS_DELETED, payload, message_id=f"{username} {deleted_at}")


async def until(condition):
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_the_builder_keeps_nothing_of_theirs_even_if_it_was_down_meanwhile(request, tmp_path, nats_url, database):
    url = {} if database == "sqlite" else {"UHM_DATABASE_URL": request.getfixturevalue("postgres_url")}
    async with builder_system(tmp_path, nats_url, **url) as system, auth_service(nats_url) as events:
        registries = registry_pb2_grpc.RegistryServiceStub(system.channel)
        for user in ("alice", "bob"):
            await system.create("nowhere.example/x:1", user=user)
            registry = registry_pb2.Registry(host="reg.example", username="me", password="secret")
            await registries.CreateRegistry(
                registry_pb2.CreateRegistryRequest(registry=registry, skip_test=True),
                metadata=system.tokens.metadata(user),
            )
        (api,) = system.processes
        api.send_signal(signal.SIGKILL)
        api.wait()
        await tell(events, "bob", deleted_at=time.time() - 3600)  # who has registered again
        await tell(events, "alice", deleted_at=time.time())
        system.start("uhm_builder", system.api_port)
        await answering(system.api_port)

        async def all_gone():
            listed = await registries.ListRegistries(
                registry_pb2.ListRegistriesRequest(), metadata=system.tokens.metadata("alice"), wait_for_ready=True
            )
            return not listed.registries and not await system.listed(user="alice")

        await until(all_gone)
        assert [image.status for image in await system.listed(user="bob")] == ["building"]
        found = await registries.ListRegistries(
            registry_pb2.ListRegistriesRequest(), metadata=system.tokens.metadata("bob")
        )
        assert [registry.host for registry in found.registries] == ["reg.example"]


async def test_their_machines_end_and_are_deleted(tmp_path, nats_url):
    disks = make_disks(tmp_path / "artifacts")
    async with (
        running_world(disks, tmp_path / "state", UHM_NATS_URL=nats_url) as world,
        auth_service(nats_url) as events,
    ):
        kept = None
        for user in ("anna", "ben"):
            for command in (FOREVER, ["true"]):
                request = pb.CreateMachineRequest(image="busybox", command=command)
                kept = (await world.client(user).CreateMachine(request)).machine
        await tell(events, "ben", deleted_at=time.time() - 3600)  # who has registered again
        await tell(events, "anna", deleted_at=time.time())

        async def all_gone():
            return not (await world.client("anna").ListMachines(pb.ListMachinesRequest(all=True))).machines

        await until(all_gone)
        others = (await world.client("ben").ListMachines(pb.ListMachinesRequest(all=True))).machines
        assert len(others) == 2
        assert kept.id in {machine.id for machine in others}
        assert world.machine_dirs() == sorted(machine.id for machine in others)
        assert disks.store.lease_holders(disks.digest) == sorted(machine.id for machine in others)
