"""A builder with all around it, for tests and benchmarks; tokens come from a stand-in for the auth service."""
# ruff: noqa: ARG002 - names and signatures are gRPC's

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.nothing_revoked import add_nothing_revoked
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parents[2]
MKFS = ROOT / "build" / "tools" / "mkfs.erofs"
INIT = ROOT / "build" / "guest" / "init"
READY_SECONDS = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tokens(auth_pb2_grpc.AuthServiceServicer):
    """Answers its public key and signs tokens with the other half."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()

    async def GetKeys(self, request: Any, context: Any) -> auth_pb2.GetKeysResponse:  # noqa: N802
        jwk = jwt.algorithms.OKPAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return auth_pb2.GetKeysResponse(
            keys=[auth_pb2.JsonWebKey(kty="OKP", crv="Ed25519", x=jwk["x"], kid="test", alg="EdDSA", use="sig")]
        )

    def metadata(self, username: str) -> list[tuple[str, str]]:
        now = int(time.time())
        claims = {
            "iss": "uhmalguhm",
            "aud": "uhmalguhm",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": uuid.uuid4().hex,
            "sub": username,
            "type": "access",
        }
        token = jwt.encode(claims, self.key, algorithm="EdDSA", headers={"kid": "test", "typ": "at+jwt"})
        return [("authorization", f"Bearer {token}")]


@dataclass
class System:
    """The API, any number of workers, and a client of them."""

    directory: Path
    nats_url: str
    extra: dict[str, str] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=Tokens)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    channel: grpc.aio.Channel | None = None
    auth_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UHM_")}
        ours = {
            "UHM_STATE_DIR": str(self.directory / "state"),
            "UHM_NATS_URL": self.nats_url,
            "UHM_AUTH_ADDRESS": f"127.0.0.1:{self.auth_port}",
            "UHM_MKFS_EROFS": str(MKFS),
            "UHM_GUEST_INIT": str(INIT),
        }
        return kept | ours | self.extra | more

    def start(self, module: str, port: int, **more: str) -> subprocess.Popen[bytes]:
        log = self.directory / f"{module}-{port}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=self.environment(UHM_LISTEN=f"127.0.0.1:{port}", **more),
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    async def start_worker(self, **more: str) -> subprocess.Popen[bytes]:
        port = free_port()
        process = self.start("uhm_builder.worker", port, **more)
        self.workers.append(process)
        await answering(port)
        return process

    async def start_api(self) -> None:
        self.start("uhm_builder", self.api_port)
        await answering(self.api_port)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.api_port}")

    @property
    def images(self) -> Any:
        assert self.channel is not None
        return image_pb2_grpc.ImageServiceStub(self.channel)

    async def create(self, reference: str, *, user: str = "alice", **more: Any) -> str:
        request = image_pb2.CreateImageRequest(image=reference, **more)
        answer = await self.images.CreateImage(request, metadata=self.tokens.metadata(user))
        return str(answer.id)

    async def get(self, name: str, *, user: str = "alice") -> image_pb2.Image:
        request = image_pb2.GetImageRequest(id=name)
        answer: image_pb2.GetImageResponse = await self.images.GetImage(request, metadata=self.tokens.metadata(user))
        return answer.image

    async def listed(self, *, user: str = "alice", **more: Any) -> list[image_pb2.Image]:
        request = image_pb2.ListImagesRequest(**more)
        return list((await self.images.ListImages(request, metadata=self.tokens.metadata(user))).images)

    async def delete(self, name: str, *, user: str = "alice") -> int:
        request = image_pb2.DeleteImageRequest(id=name)
        return int((await self.images.DeleteImage(request, metadata=self.tokens.metadata(user))).freed_bytes)

    async def usage(self, *, user: str = "alice") -> image_pb2.GetUsageResponse:
        answer: image_pb2.GetUsageResponse = await self.images.GetUsage(
            image_pb2.GetUsageRequest(), metadata=self.tokens.metadata(user)
        )
        return answer

    async def collect(self, *, user: str = "alice", **more: Any) -> image_pb2.CollectGarbageResponse:
        request = image_pb2.CollectGarbageRequest(**more)
        answer: image_pb2.CollectGarbageResponse = await self.images.CollectGarbage(
            request, metadata=self.tokens.metadata(user)
        )
        return answer

    async def cancel(self, name: str, *, user: str = "alice") -> image_pb2.Image:
        request = image_pb2.CancelImageRequest(id=name)
        answer: image_pb2.CancelImageResponse = await self.images.CancelImage(
            request, metadata=self.tokens.metadata(user)
        )
        return answer.image

    def watch(self, name: str, *, user: str = "alice") -> Any:
        request = image_pb2.WatchImageRequest(id=name)
        return self.images.WatchImage(request, metadata=self.tokens.metadata(user))

    async def ended(self, name: str, *, user: str = "alice", within: float = 90) -> image_pb2.Image:
        """Watches to the end; the last state."""
        last = None
        async with asyncio.timeout(within):
            async for event in self.watch(name, user=user):
                if event.WhichOneof("event") == "image":
                    last = event.image
        assert last is not None
        assert last.status != "building"
        return last

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    @property
    def artifacts(self) -> Path:
        return self.directory / "state" / "artifacts"

    def staged(self) -> list[Path]:
        return list(self.artifacts.glob("staging/*"))

    async def stop(self) -> None:
        if self.channel is not None:
            await self.channel.close(None)
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                await asyncio.to_thread(process.wait, 40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def answering(port: int) -> None:
    """Waits until a server says that it serves."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        async with asyncio.timeout(READY_SECONDS):
            check = channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
            while True:
                try:
                    if await check(b"", timeout=2) == b"\x08\x01":
                        return
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)


def copy_bases(source: Path, target: Path) -> None:
    """Copies what was made, unless there is something already."""
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        return
    subprocess.run(["cp", "-a", "--sparse=always", f"{source}/.", str(target)], check=True)


@asynccontextmanager
async def builder_system(
    directory: Path, nats_url: str, *, bases: Path | None = None, **extra: str
) -> AsyncIterator[System]:
    """A system with its API; workers are for the test to start.

    `bases` is where the base that one system has made is kept for those that come later, which begin with it.
    """
    system = System(directory, nats_url, extra=extra)
    if bases is not None:
        copy_bases(bases, system.artifacts / "bases")
    auth = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(system.tokens, auth)
    add_nothing_revoked(auth)
    auth.add_insecure_port(f"127.0.0.1:{system.auth_port}")
    await auth.start()
    try:
        await system.start_api()
        yield system
        if bases is not None:
            copy_bases(system.artifacts / "bases", bases)
    finally:
        await system.stop()
        await auth.stop(0)
