"""The only wiring: from settings to the parts of this service, and what runs while it serves."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import socket
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from uhm_common.artifacts import ArtifactStore, locked
from uhm_common.bootstrap import GRPC_OPTIONS, Server
from uhm_common.callers.boundary import Boundary
from uhm_common.callers.verifier import remote_verification
from uhm_common.database import Database
from uhm_common.departures import Departures
from uhm_common.errors import FailedPrecondition
from uhm_common.events import IMAGES_STREAM, USERS_DELETED, USERS_STREAM, EventBus
from uhm_common.idempotency import Idempotency, IdempotencyKeys
from uhm_common.paging import PageTokens
from uhm_common.settings import database_url
from uhm_common.subscription import Subscription
from uhm_common.tls import open_channel
from uhm_common.vault import open_vault
from uhm_machines.belongings import MachineBelongings
from uhm_machines.capacity import Capacity
from uhm_machines.disks import ImageDisk
from uhm_machines.exports import ImageExports
from uhm_machines.images import BuilderImages
from uhm_machines.ledger import Ledger
from uhm_machines.models import IDEMPOTENCY_KEYS
from uhm_machines.ports import PortBook
from uhm_machines.probe import HostProbe, host_memory_mib
from uhm_machines.requests import DEFAULT_MEMORY_MIB, Bounds
from uhm_machines.service import MachineService
from uhm_machines.servicer import MachineServicer
from uhm_machines.shape import shape_of
from uhm_machines.snapshots.announcements import SUBJECTS, Announcements
from uhm_machines.snapshots.maker import SnapshotMaker
from uhm_machines.snapshots.store import SnapshotStore
from uhm_machines.starts import Starts
from uhm_machines.starts.restorer import Restorer
from uhm_machines.starts.spares import Spares
from uhm_machines.starts.spawner import Spawner
from uhm_machines.store import MachineStore
from uhm_machines.supervisor import Supervisor
from uhmalguhm.machines.v1 import machine_pb2, machine_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from uhm_machines.settings import Settings

__all__ = ["Parts", "open_parts", "serve", "sole_owner"]

SERVICE: Final = machine_pb2.DESCRIPTOR.services_by_name["MachineService"].full_name
_MIB: Final = 1 << 20
_OVERCOMMIT: Final = 2
_STARTS_PER_PROCESSOR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The machines of this host, taken over from whoever ran them before, and what they need."""

    database: Database
    store: MachineStore
    ledger: Ledger
    supervisor: Supervisor
    starts: Starts
    maker: SnapshotMaker
    spares: Spares
    exports: ImageExports
    probe: HostProbe
    artifacts: ArtifactStore


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Opens the database and takes over what runs. At the end all of it is let go of, and goes on.

    Raises FailedPrecondition where another process has these machines.
    """
    settings.machines_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _raise_file_limit()
    database = Database(database_url(settings, service="machines"))
    artifacts = ArtifactStore(settings.artifacts_dir)
    probe = HostProbe(qemu=settings.qemu, accelerator=settings.accelerator, cache=settings.machines_dir / "host.json")
    exports = ImageExports(settings.exports_dir, artifacts=artifacts)
    store = MachineStore(database)
    ledger = Ledger(store)
    spawner = Spawner(qemu=settings.qemu, exports=exports)
    restorer = Restorer(spawner)
    snapshots = SnapshotStore(settings.snapshots_dir, max_bytes=settings.max_snapshots_mib * _MIB)
    maker = SnapshotMaker(
        settings.snapshots_dir,
        store=snapshots,
        spawner=spawner,
        exports=exports,
        enabled=settings.snapshots == "auto",
    )
    spares = Spares(
        settings.machines_dir, restorer=restorer, exports=exports, store=snapshots, limit=settings.spare_machines
    )
    maker.made = spares.want_made
    starts = Starts(
        probe=probe,
        exports=exports,
        artifacts=artifacts,
        spawner=spawner,
        restorer=restorer,
        store=snapshots,
        maker=maker,
        spares=spares,
        parallel=_STARTS_PER_PROCESSOR * (os.cpu_count() or 1),
    )
    supervisor = Supervisor(
        settings.machines_dir,
        store=store,
        ledger=ledger,
        starts=starts,
        exports=exports,
        artifacts=artifacts,
        ports=PortBook(),
        capacity=Capacity(
            machines=settings.max_machines, memory_mib=settings.max_memory_mib or _OVERCOMMIT * host_memory_mib()
        ),
        start_seconds=settings.start_seconds,
    )
    with sole_owner(settings):
        try:
            await store.migrate()
            await maker.sweep()
            snapshots.open()
            await supervisor.adopt()
            yield Parts(
                database=database,
                store=store,
                ledger=ledger,
                supervisor=supervisor,
                starts=starts,
                maker=maker,
                spares=spares,
                exports=exports,
                probe=probe,
                artifacts=artifacts,
            )
        finally:
            await supervisor.close()
            await spares.close()
            exports.close()
            await database.close()


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT."""
    async with (
        open_parts(settings) as parts,
        remote_verification(settings) as verification,
        open_channel(settings.builder_address, tls=settings.services_tls, options=GRPC_OPTIONS) as builder,
    ):
        vault = open_vault(settings.key_path("machines"))
        idempotency_keys = IdempotencyKeys(IDEMPOTENCY_KEYS, database=parts.database)
        service = MachineService(
            store=parts.store,
            ledger=parts.ledger,
            supervisor=parts.supervisor,
            starts=parts.starts,
            images=BuilderImages(builder),
            artifacts=parts.artifacts,
            bounds=Bounds(memory_mib=host_memory_mib(), vcpus=os.cpu_count() or 1),
            page_tokens=PageTokens(vault),
        )
        servicer = MachineServicer(service)

        events = EventBus(settings.nats_url, name="machines")
        durable = _durable_name(settings)
        belongings = MachineBelongings(service, idempotency_keys=idempotency_keys)
        deletions = Subscription(events=events, stream=USERS_STREAM, subjects=[USERS_DELETED], durable=durable)
        background: list[Callable[[], Coroutine[Any, Any, None]]] = [
            verification.follower.run,
            idempotency_keys.run,
            events.run,
            partial(deletions.run, Departures(belongings).handle),
            parts.exports.keep,
            partial(parts.supervisor.bound_logs, keep=settings.max_log_mib * _MIB),
            partial(_prepare_early, parts),
            parts.maker.run,
            parts.spares.run,
        ]
        if settings.snapshots == "auto":
            announcements = Announcements(maker=parts.maker, probe=parts.probe, artifacts=parts.artifacts)
            images = Subscription(events=events, stream=IMAGES_STREAM, subjects=SUBJECTS, durable=durable)
            background.append(partial(images.run, announcements.handle))
        await Server(
            listen=settings.listen,
            tls=settings.server_tls,
            services=[SERVICE],
            add=lambda server: machine_pb2_grpc.add_MachineServiceServicer_to_server(servicer, server),
            interceptors=[Boundary(verifier=verification.verifier), Idempotency(idempotency_keys, vault=vault)],
            background=background,
        ).serve()


async def _prepare_early(parts: Parts) -> None:
    """Finds out about the host and makes the template of the usual shape, as soon as there is something to boot."""
    boot = await parts.probe.probe_early(parts.artifacts)
    any_disk = ImageDisk(digest="", size=0, boot=boot)
    shape = await shape_of(any_disk, parts.probe, memory_mib=DEFAULT_MEMORY_MIB, vcpus=1)
    parts.maker.want_template(shape, any_disk)
    await asyncio.Event().wait()


def _durable_name(settings: Settings) -> str:
    """Each host's service hears of every image and user, and goes on where it was."""
    where = f"{socket.gethostname()}:{settings.machines_dir.absolute()}"
    return f"machines-{hashlib.sha256(where.encode()).hexdigest()[:16]}"


@contextmanager
def sole_owner(settings: Settings) -> Iterator[None]:
    """Makes sure that one process only has the machines of a state directory. Raises FailedPrecondition."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(settings.machines_dir / "service.lock", exclusive=True, blocking=False))
        except BlockingIOError as error:
            raise FailedPrecondition(
                f"Another process runs the machines in {settings.machines_dir}.", hint="Stop it first."
            ) from error
        yield


def _raise_file_limit() -> None:
    """Allows us and our children as many open files as the system does: the export daemon opens each layer."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
