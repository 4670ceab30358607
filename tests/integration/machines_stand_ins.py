"""What the machines service needs around it in tests: who calls, which images there are, itself as a process."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from base64 import urlsafe_b64encode
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.integration.nothing_revoked import add_nothing_revoked
from uhm_builder.base import Ingredients, load_base, make_base
from uhm_builder.disk import compose, load_disk
from uhm_common.artifacts import ArtifactStore
from uhm_common.process import run
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc
from uhmalguhm.machines.v1 import machine_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]
MKFS = ROOT / "build/tools/mkfs.erofs"
INIT = ROOT / "build/guest/init"
APPLETS = (
    *(
        "sh",
        "ls",
        "cat",
        "echo",
        "sleep",
        "httpd",
        "id",
        "env",
        "pwd",
        "kill",
        "true",
        "false",
        "test",
        "touch",
        "sync",
    ),
    *("date", "hostname", "ps", "wget", "head", "dd", "yes", "seq", "md5sum"),
)
MIB = 1 << 20
WHO_AM_I = b"""#!/bin/sh
[ "$QUERY_STRING" ] && echo "$QUERY_STRING" >> /written
echo
head -c 16 /dev/urandom | md5sum
hostname
cat /etc/hostname /etc/machine-id
cat /written
"""
PAGE = b"hello from a machine\n"
LARGE = random.Random(0).randbytes(4 * MIB)


@dataclass(frozen=True, slots=True)
class Disks:
    """An artifact store with one disk: a busybox, a page for its web server, and nothing else."""

    store: ArtifactStore
    digest: str


def make_disks(root: Path) -> Disks:
    """Makes a base and a disk; takes about 20 s."""
    store = ArtifactStore(root)
    base = make_base(store, Ingredients(init=INIT, mkfs_erofs=MKFS), kvm=False)
    return Disks(store, compose(store, base, [_stored(store, _busybox_layer())]).digest)


def with_file(disks: Disks, name: str, content: bytes) -> str:
    """The digest of a disk that has one executable file more."""
    disk = load_disk(disks.store, disks.digest)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        file = tarfile.TarInfo(name)
        file.size, file.mode = len(content), 0o755
        archive.addfile(file, io.BytesIO(content))
    top = _stored(disks.store, buffer.getvalue())
    return compose(disks.store, load_base(disks.store, disk.base), [*disk.layers, top]).digest


def _stored(store: ArtifactStore, layer: bytes) -> str:
    """Makes a layer's blob, where it is not there; answers its diffID."""
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    blob = store.layer(diff_id)
    if not blob.exists():
        blob.parent.mkdir(parents=True, exist_ok=True)
        options = ("--tar=f", "--aufs", "--quiet", "-Enoinline_data", "-T0", f"-U{uuid.UUID(int=1)}", "--sort=none")
        run([MKFS, *options, blob], timeout=60, stdin=layer)
        size = blob.stat().st_size
        os.truncate(blob, size + -size % MIB)
    return diff_id


def _busybox_layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add("/usr/bin/busybox", "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, content in (("www/index.html", PAGE), ("www/large", LARGE), ("www/cgi-bin/me", WHO_AM_I)):
            page = tarfile.TarInfo(name)
            page.size, page.mode = len(content), 0o755
            archive.addfile(page, io.BytesIO(content))
    return buffer.getvalue()


class Tokens(auth_pb2_grpc.AuthServiceServicer):
    """Issues tokens and answers the key that they are checked with."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    async def GetKeys(self, _request, _context):  # noqa: N802
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = urlsafe_b64encode(raw).rstrip(b"=").decode()
        key = auth_pb2.JsonWebKey(kid="test", kty="OKP", crv="Ed25519", x=x, alg="EdDSA", use="sig")
        return auth_pb2.GetKeysResponse(keys=[key])

    def issue(self, username: str) -> str:
        now = int(time.time())
        claims = {
            "iss": "uhmalguhm", "aud": "uhmalguhm", "iat": now, "nbf": now, "exp": now + 3600,
            "jti": uuid.uuid4().hex, "sub": username, "type": "access", "sid": "test",
        }  # fmt: skip
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": "test", "typ": "at+jwt"})


class StandInImages(image_pb2_grpc.ImageServiceServicer):
    """Answers images by their reference."""

    def __init__(self) -> None:
        self.images: dict[str, image_pb2.Image] = {}

    def add(self, reference: str, digest: str, *, status: str = "ready", reason: str = "", **config) -> None:
        self.images[reference] = image_pb2.Image(
            id=uuid.uuid4().hex,
            reference=reference,
            status=status,
            reason=reason,
            disk_digest=digest,
            config=image_pb2.ImageConfig(**config),
        )

    async def GetImage(self, request, context):  # noqa: N802
        if request.id not in self.images:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such image")
        return image_pb2.GetImageResponse(image=self.images[request.id])


@dataclass(slots=True)
class World:
    """A machines service that can be killed and started again, with its neighbours."""

    state_dir: Path
    disks: Disks
    env: dict[str, str]
    tokens: Tokens
    images: StandInImages
    port: int
    service: subprocess.Popen[bytes] | None = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def log_path(self) -> Path:
        return self.state_dir / "service.log"

    def spawn(self) -> None:
        with self.log_path.open("ab") as log:
            self.service = subprocess.Popen(
                [sys.executable, "-m", "uhm_machines"], env=os.environ | self.env, stderr=log, cwd=ROOT
            )

    async def start(self) -> None:
        self.spawn()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.service is not None
            assert self.service.poll() is None, self.log_path.read_text()[-3000:]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return
        raise TimeoutError(self.log_path.read_text()[-3000:])

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.service is not None:
            self.service.send_signal(number)
            self.service.wait(30)
            self.service = None

    async def drain(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "uhm_machines.drain", env=os.environ | self.env, cwd=ROOT, stderr=subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()

    def client(self, username: str = "anna", *, key: str = "") -> Client:
        """Calls as that user; with an idempotency key, if one is given."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        self.channels.append(channel)
        metadata = [("authorization", f"Bearer {self.tokens.issue(username)}")]
        metadata += [("idempotency-key", key)] if key else []
        return Client(machine_pb2_grpc.MachineServiceStub(channel), metadata)

    def machine_dirs(self) -> list[str]:
        return sorted(path.name for path in (self.state_dir / "machines").glob("*/"))

    def processes(self) -> list[str]:
        """Command lines of what runs in the state directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                inside = (entry / "cwd").readlink().is_relative_to(self.state_dir)
                if inside:
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:
                continue
        return found


class Client:
    """Calls the service as one user."""

    def __init__(self, stub, metadata) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, method: str):
        call = getattr(self._stub, method)
        return lambda request, **options: call(
            request, metadata=self._metadata, timeout=120, wait_for_ready=True, **options
        )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def linked_artifacts(disks: Disks, state_dir: Path) -> Iterator[None]:
    """The disks, in a state directory that does not hold them."""
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / "artifacts").symlink_to(disks.store.root)
    yield
    (state_dir / "artifacts").unlink()


@asynccontextmanager
async def running_world(disks: Disks, state_dir: Path, **env: str) -> AsyncIterator[World]:
    """Everything up; at the end everything is down, and it is checked that nothing is left running."""
    # The servicers' other methods are not called.
    tokens, images = cast("Any", Tokens)(), cast("Any", StandInImages)()
    server = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(tokens, server)
    add_nothing_revoked(server)
    image_pb2_grpc.add_ImageServiceServicer_to_server(images, server)
    neighbours = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    port = free_port()
    settings = {
        "UHM_STATE_DIR": str(state_dir),
        "UHM_LISTEN": f"127.0.0.1:{port}",
        "UHM_AUTH_ADDRESS": neighbours,
        "UHM_BUILDER_ADDRESS": neighbours,
        "UHM_ACCELERATOR": "tcg",
        "UHM_SNAPSHOTS": "off",
    }
    images.add("busybox", disks.digest, cmd=["sh", "-c", "echo hello; echo oops >&2; exit 3"])
    images.add("web", disks.digest, cmd=["httpd", "-f", "-v", "-h", "/www"], exposed_ports=["80/tcp"])
    with linked_artifacts(disks, state_dir):
        world = World(state_dir, disks, settings | env, tokens, images, port)
        try:
            await world.start()
            yield world
        finally:
            for channel in world.channels:
                await channel.close(None)
            world.terminate()
            await world.drain()
            await server.stop(None)
            shutil.rmtree(disks.store.disk(disks.digest) / "leases", ignore_errors=True)
            assert world.processes() == []
