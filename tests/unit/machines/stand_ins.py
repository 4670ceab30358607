"""What tests of starts and snapshots have in common: values, and collaborators that only note what they are asked."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from uhm_common.artifacts import ArtifactStore
from uhm_machines.channel import GuestEvent
from uhm_machines.disks import ImageDisk
from uhm_machines.errors import GuestFailed
from uhm_machines.images import Image, ImageConfig
from uhm_machines.machine import Accelerator, StartKind
from uhm_machines.probe import Host
from uhm_machines.qemu.argv import BootFiles
from uhm_machines.qemu.process import ExitStatus
from uhm_machines.shape import Shape
from uhm_machines.snapshots.store import SnapshotStore
from uhm_machines.starts.wish import Service, service_of

BASE, DIGEST = "sha256:" + "b" * 64, "sha256:" + "d" * 64
BOOT = BootFiles(
    base=BASE,
    kernel=Path("/a/vmlinux"),
    kernel_version="6.1 minimal",
    initramfs=Path("/a/initramfs"),
    command_line="rdinit=/init",
)
DISK = ImageDisk(digest=DIGEST, size=1 << 30, boot=BOOT)
SHAPE = Shape(
    base=BASE,
    qemu_version="9.1.0",
    devices="board",
    cpu="max",
    accelerator=Accelerator.TCG,
    tsc_khz=2_500_000,
    memory_mib=256,
    vcpus=1,
    disk_size=64 << 30,
)
IMAGE = Image(
    id="i1",
    reference="nginx:latest",
    disk_digest=DIGEST,
    config=ImageConfig(cmd=("nginx",), env=("A=1",), exposed_ports=("80/tcp",)),
)


def a_service(**config: Any) -> Service:
    """The service of an image whose configuration differs in these fields."""
    service = service_of(replace(IMAGE, config=replace(IMAGE.config, **config)))
    assert service is not None
    return service


def recorded_artifacts(root: Path, *, size: int = 1 << 30) -> ArtifactStore:
    """The builder's records of one disk and its base."""
    store = ArtifactStore(root)
    base = {"digest": BASE, "command_line": "rdinit=/init", "kernel_version": "6.1 minimal", "more": 1}
    for directory, name, record in (
        (store.disk(DIGEST), "disk.json", {"digest": DIGEST, "base": BASE, "layers": [], "size": size}),
        (store.base(BASE), "base.json", base),
    ):
        directory.mkdir(parents=True)
        (directory / name).write_text(json.dumps(record))
    return store


def a_store(directory: Path, *, max_bytes: int = 1 << 40) -> SnapshotStore:
    """A store of snapshots that is open."""
    store = SnapshotStore(directory, max_bytes=max_bytes)
    store.open()
    return store


def committed(store: SnapshotStore, key: str, kind: StartKind = StartKind.TEMPLATE, *, size: int = 4096, image_id=""):
    """A snapshot of about this size."""
    directory = store.new_directory()
    (directory / "memory").write_bytes(b"m" * size)
    (directory / "state").write_bytes(b"s")
    if kind is StartKind.READY:
        (directory / "disk.qcow2").write_bytes(b"written by the service")
    snapshot = store.seal(directory, key=key, kind=kind, image_id=image_id, disk_digest=DIGEST if image_id else "")
    store.commit(directory, snapshot)
    return snapshot


class StandInProbe:
    """A host without KVM."""

    tsc_khz = 2_500_000
    kvm = False

    async def host(self, _boot):
        return Host(boot_id="boot", qemu_version="9.1.0", tsc_khz=self.tsc_khz, kvm=self.kvm)

    async def accelerator(self, _boot):
        return Accelerator.KVM if self.kvm else Accelerator.TCG


class StandInExports:
    """Notes who uses what."""

    def __init__(self) -> None:
        self.users: set[tuple[str, str]] = set()
        self.error: Exception | None = None

    async def acquire(self, digest, *, machine_id):
        if self.error is not None:
            raise self.error
        self.users.add((digest, machine_id))

    async def release(self, digest, *, machine_id):
        self.users.discard((digest, machine_id))


class StandInProcess:
    """A process that lives until it is killed."""

    pid = 1 << 30  # of nobody: it takes no processor time

    def __init__(self) -> None:
        self._gone = asyncio.Event()

    @property
    def alive(self):
        return not self._gone.is_set()

    def kill(self):
        self._gone.set()

    async def ended(self):
        await self._gone.wait()
        return ExitStatus(137)

    def close(self):
        pass


class StandInSession:
    """A monitor that answers as it was told to, and notes what it was asked; an exception among answers is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "human-monitor-command": "", "query-migrate": {"status": "completed"},
        } | {name.replace("_", "-"): answer for name, answer in answers.items()}  # fmt: skip
        self.asked: list[tuple[str, Any]] = []
        self.closed = False
        self.process: StandInProcess | None = None
        """Ended by `quit`."""

    async def execute(self, command, arguments=None):
        self.asked.append((command, arguments))
        answer = self.answers.get(command, {})
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def lend_fd(self, name, descriptor):
        self.asked.append(("lend", (name, _path_of(descriptor))))

    async def close(self):
        self.closed = True

    async def quit(self):
        self.asked.append(("quit", None))
        if self.process is not None:
            self.process.kill()

    @property
    def commands(self):
        return [command for command, _ in self.asked]


def _path_of(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


async def until(true: Callable[[], object]) -> None:
    """Waits, not for ever, until something is true."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.002)


class StandInGuest:
    """A guest that says what is expected of it, with an argument or an error of the test's choice."""

    def __init__(self, **says: Any) -> None:
        self.says = says
        self.heard: list[tuple[str, bytes]] = []
        """Verbs and payloads."""
        self.told: list[str] = []
        """Verbs and events, in order."""
        self.channel = StandInChannel()

    async def send(self, verb, payload=b""):
        self.heard.append((str(verb), payload))
        self.told.append(str(verb))

    async def expect(self, *names, **_within):
        name = next((name for name in names if name in self.says), names[0])
        answer = self.says.get(name, "0" if name in {"restored", "checked"} else "")
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        self.told.append(name)
        return GuestEvent(1.0, name, answer)


class StandInChannel:
    closed = False

    def close(self):
        self.closed = True


class StandInRunning:
    """A QEMU that is up, with nothing in it."""

    def __init__(self, files, *, guest: StandInGuest | None = None, session: StandInSession | None = None) -> None:
        self.files = files
        self.process = StandInProcess()
        self.session = session or StandInSession()
        self.session.process = self.process
        self.guest = guest or StandInGuest()
        self.has_ended = False

    async def end(self):
        self.process.kill()
        self.has_ended = True


HUNG = GuestFailed("it did not get so far")
