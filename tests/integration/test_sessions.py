"""What becomes of sessions and keys at services that are processes of their own: auth, builder and machines."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
import jwt
import pytest

from tests.integration.service_process import auth_process, service_process
from uhmalguhm.auth.v1 import api_key_pb2, api_key_pb2_grpc, auth_pb2, auth_pb2_grpc
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc
from uhmalguhm.machines.v1 import machine_pb2, machine_pb2_grpc

pytestmark = pytest.mark.integration

ANN = {"username": "ann", "password": "test"}
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
REFRESHES = 50
PROMISED_SECONDS = 5
"""How soon a revocation is known everywhere."""


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def kid(token) -> str:
    return jwt.get_unverified_header(token)["kid"]


async def log_in(auth, **more):
    return await auth.IssueToken(auth_pb2.IssueTokenRequest(**ANN, **more))


async def refresh(auth, token):
    return await auth.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(token))


async def code_of(call) -> grpc.StatusCode:
    with suppress(grpc.aio.AioRpcError):
        await call
    return await call.code()


@pytest.fixture(params=["sqlite", "postgresql"])
async def replicas(request, tmp_path, free_port):
    """Clients of two auth services with one database, or of one with its own, and where the last one is."""
    shared = {"UHM_STATE_DIR": str(tmp_path / "auth"), "UHM_NATS_URL": f"nats://127.0.0.1:{free_port()}"}
    count = 1
    if request.param == "postgresql":
        shared["UHM_DATABASE_URL"] = request.getfixturevalue("postgres_url")
        count = 2
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)]
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(auth_process(address, **shared)) for address in addresses]
        stubs = [auth_pb2_grpc.AuthServiceStub(channel) for channel in channels]
        await stubs[0].CreateUser(auth_pb2.CreateUserRequest(**ANN))
        yield stubs, addresses[-1]


async def test_of_many_refreshes_at_once_one_wins_and_the_others_get_the_same(replicas):
    stubs, _ = replicas
    issued = await log_in(stubs[0], rotate=True)

    answers = await asyncio.gather(
        *(refresh(stubs[number % len(stubs)], issued.refresh_token) for number in range(REFRESHES))
    )

    successors = {answer.refresh_token for answer in answers}
    assert len(successors) == 1
    assert successors != {issued.refresh_token}
    assert len({answer.access_token for answer in answers}) == REFRESHES
    for answer in answers:
        me = auth_pb2.GetCurrentUserRequest()
        assert (await stubs[0].GetCurrentUser(me, metadata=bearer(answer.access_token))).username == "ann"
    assert (await refresh(stubs[-1], successors.pop())).refresh_token


async def test_keys_rotate_under_load_without_a_refusal(replicas, tmp_path, free_port):
    """Tokens come from one replica, and the keys that the builder verifies them with from the other."""
    stubs, auth_address = replicas
    issued = await log_in(stubs[0])
    builder_environment = {
        "UHM_STATE_DIR": str(tmp_path / "builder"),
        "UHM_AUTH_ADDRESS": auth_address,
        "UHM_NATS_URL": f"nats://127.0.0.1:{free_port()}",
    }
    used: dict[str, int] = {}
    done = asyncio.Event()

    async with service_process("uhm_builder", f"127.0.0.1:{free_port()}", **builder_environment) as channel:
        images = image_pb2_grpc.ImageServiceStub(channel)

        async def work() -> None:
            while not done.is_set():
                token = (await refresh(stubs[0], issued.refresh_token)).access_token
                await images.ListImages(image_pb2.ListImagesRequest(), metadata=bearer(token))
                used[kid(token)] = used.get(kid(token), 0) + 1

        async def use(keys: int) -> None:
            while len(used) < keys:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(work())
            await use(1)
            for _ in range(2):  # at once: the second key that signs was not known to anybody a moment before
                await stubs[0].RotateKeys(auth_pb2.RotateKeysRequest(), metadata=bearer(issued.access_token))
            newest = kid((await log_in(stubs[0])).access_token)
            while used.get(newest, 0) < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            done.set()
        await images.ListImages(image_pb2.ListImagesRequest(), metadata=bearer(issued.access_token))
    assert kid(issued.access_token) in used


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Clients of a builder and of a machines service, and where their auth service is, which may come and go."""

    images: image_pb2_grpc.ImageServiceStub
    machines: machine_pb2_grpc.MachineServiceStub
    auth_address: str
    auth_environment: dict[str, str]

    @asynccontextmanager
    async def auth(self):
        async with auth_process(self.auth_address, **self.auth_environment) as channel:
            yield channel

    def calls(self, token):
        """One call to each of the two services."""
        return [
            self.images.ListImages(image_pb2.ListImagesRequest(), metadata=bearer(token)),
            self.machines.ListMachines(machine_pb2.ListMachinesRequest(), metadata=bearer(token)),
        ]

    async def codes(self, token) -> set[str]:
        return {(await code_of(call)).name for call in self.calls(token)}

    async def refused_by_all(self, token) -> None:
        """Waits until both services refuse the token, which is promised to be soon."""
        async with asyncio.timeout(PROMISED_SECONDS):
            while await self.codes(token) != {"UNAUTHENTICATED"}:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)

    async def watch(self, token):
        """A stream of a build that nobody takes up, after its first message."""
        created = await self.images.CreateImage(image_pb2.CreateImageRequest(image="nginx"), metadata=bearer(token))
        stream = self.images.WatchImage(image_pb2.WatchImageRequest(id=created.id), metadata=bearer(token))
        assert (await stream.read()).image.status == "building"
        return stream


@pytest.fixture
async def system(tmp_path, free_port, nats_url):
    auth, builder, machines = (f"127.0.0.1:{free_port()}" for _ in range(3))
    shared = {"UHM_NATS_URL": nats_url, "UHM_AUTH_ADDRESS": auth, "UHM_BUILDER_ADDRESS": builder}
    shared |= {"UHM_STATE_DIR": str(tmp_path / "state"), "UHM_SNAPSHOTS": "off", "UHM_SPARE_MACHINES": "0"}
    async with (
        service_process("uhm_builder", builder, **shared) as builder_channel,
        service_process("uhm_machines", machines, **shared) as machines_channel,
    ):
        yield System(
            images=image_pb2_grpc.ImageServiceStub(builder_channel),
            machines=machine_pb2_grpc.MachineServiceStub(machines_channel),
            auth_address=auth,
            auth_environment=shared,
        )


async def ended(stream) -> grpc.aio.AioRpcError:
    """How a stream was ended, whatever it still had to say."""

    async def drain():
        while await stream.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(drain(), PROMISED_SECONDS)
    return caught.value


async def test_a_session_that_is_revoked_ends_everywhere(system):
    async with system.auth() as channel:
        auth = auth_pb2_grpc.AuthServiceStub(channel)
        await auth.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        gone, stays = await log_in(auth), await log_in(auth)
        streams = [await system.watch(issued.access_token) for issued in (gone, stays)]
        assert await system.codes(gone.access_token) == {"OK"}

        await auth.RevokeToken(auth_pb2.RevokeTokenRequest(), metadata=bearer(gone.refresh_token))

        error = await ended(streams[0])
        assert (error.code(), "was ended" in error.details()) == (UNAUTHENTICATED, True)
        await system.refused_by_all(gone.access_token)
        assert await system.codes(stays.access_token) == {"OK"}
        assert not streams[1].done()
        streams[1].cancel()


async def test_an_api_key_that_is_deleted_ends_everywhere(system):
    async with system.auth() as channel:
        auth, keys = auth_pb2_grpc.AuthServiceStub(channel), api_key_pb2_grpc.ApiKeyServiceStub(channel)
        await auth.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        me = bearer((await log_in(auth)).access_token)
        request = api_key_pb2.CreateApiKeyRequest(name="ci", scopes=["images.write", "machines.read"])
        made = await keys.CreateApiKey(request, metadata=me)
        stream = await system.watch(made.key)
        assert await system.codes(made.key) == {"OK"}
        assert await system.codes(made.key[:-2] + "__") == {"UNAUTHENTICATED"}

        await keys.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(id=made.api_key.id), metadata=me)

        assert (await ended(stream)).code() is UNAUTHENTICATED
        await system.refused_by_all(made.key)


async def test_while_auth_is_down_what_is_known_stays_in_force(system):
    async with system.auth() as channel:
        auth = auth_pb2_grpc.AuthServiceStub(channel)
        await auth.CreateUser(auth_pb2.CreateUserRequest(**ANN))
        gone, stays, later = [await log_in(auth) for _ in range(3)]
        stream = await system.watch(later.access_token)
        assert await system.codes(stays.access_token) == {"OK"}
        await auth.RevokeToken(auth_pb2.RevokeTokenRequest(), metadata=bearer(gone.access_token))
        await system.refused_by_all(gone.access_token)

    assert await system.codes(gone.access_token) == {"UNAUTHENTICATED"}
    assert await system.codes(stays.access_token) == {"OK"}
    assert await system.codes(later.access_token) == {"OK"}
    assert not stream.done()

    async with system.auth() as channel:
        auth = auth_pb2_grpc.AuthServiceStub(channel)
        await auth.RevokeToken(auth_pb2.RevokeTokenRequest(), metadata=bearer(later.access_token))
        assert (await ended(stream)).code() is UNAUTHENTICATED
        await system.refused_by_all(later.access_token)
        assert await system.codes(gone.access_token) == {"UNAUTHENTICATED"}
        assert await system.codes(stays.access_token) == {"OK"}
