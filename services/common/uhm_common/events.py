"""Events over NATS: one place that knows the streams, connects, and keeps trying while the server is down.

| stream | subjects | kind |
|---|---|---|
| UHM_BUILDS | `uhm.builds.requested` | work queue: each build is taken by one worker |
| UHM_PUBLICATIONS | `uhm.publications.requested` | work queue: each publication is taken by one worker |
| UHM_IMAGES | `uhm.images.ready`, `uhm.images.deleted` | kept for a day: whoever wants to know, by a `Subscription` |
| UHM_USERS | `uhm.users.deleted` | kept for good: whoever has something of the user, by a `Subscription` |

Their payloads are JSON objects:

| subject | payload |
|---|---|
| `uhm.builds.requested` | `id` |
| `uhm.publications.requested` | `id` |
| `uhm.images.ready` | `id`, `owner`, `reference`, `disk_digest`, `config`: the fields of the builder's ImageConfig |
| `uhm.images.deleted` | `id`, `owner`, `reference`, `disk_digest` |
| `uhm.users.deleted` | `username`, `deleted_at` in seconds since the epoch: what is made later is not theirs |

A ready image's `config` is left out where it is too large for a message; GetImage answers it. Another image may have
the disk of one that was deleted. So it is where an image is made again unchanged: first the former is deleted, then the
new one is ready, and the former's id stands for the new one.

A deletion is kept because this event is all that tells of it: a host that comes back after a year still deletes what it
has. A service that is new hears of all of them, and has nothing to delete (`uhm_common.departures`).

Outside of any stream, so that nothing is kept: `uhm.builds.<id>.progress`, `uhm.builds.<id>.cancel`, the request
`uhm.builds.<id>.secrets`, which is answered, and `uhm.publications.<id>.progress` and `uhm.publications.<id>.cancel`.
The database is the truth; an event only says that it is worth a look.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import nats
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from uhm_common.errors import Unavailable
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

__all__ = [
    "BUILDS_REQUESTED",
    "BUILDS_STREAM",
    "IMAGES_DELETED",
    "IMAGES_READY",
    "IMAGES_STREAM",
    "PUBLICATIONS_REQUESTED",
    "PUBLICATIONS_STREAM",
    "USERS_DELETED",
    "USERS_STREAM",
    "EventBus",
    "cancel_subject",
    "encode",
    "progress_subject",
    "publication_cancel_subject",
    "publication_progress_subject",
    "secrets_subject",
]

log = get_logger()

BUILDS_STREAM = "UHM_BUILDS"
BUILDS_REQUESTED = "uhm.builds.requested"
PUBLICATIONS_STREAM = "UHM_PUBLICATIONS"
PUBLICATIONS_REQUESTED = "uhm.publications.requested"
IMAGES_STREAM = "UHM_IMAGES"
IMAGES_READY = "uhm.images.ready"
IMAGES_DELETED = "uhm.images.deleted"
USERS_STREAM = "UHM_USERS"
USERS_DELETED = "uhm.users.deleted"
RETRY_SECONDS = 0.5
CANCEL_AGAIN_SECONDS = 0.1
DAY_SECONDS = 24 * 3600

STREAMS = (
    StreamConfig(
        name=BUILDS_STREAM,
        subjects=[BUILDS_REQUESTED],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        duplicate_window=120,
    ),
    StreamConfig(
        name=PUBLICATIONS_STREAM,
        subjects=[PUBLICATIONS_REQUESTED],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        duplicate_window=120,
    ),
    StreamConfig(
        name=IMAGES_STREAM,
        subjects=[IMAGES_READY, IMAGES_DELETED],
        storage=StorageType.FILE,
        max_age=DAY_SECONDS,
    ),
    StreamConfig(
        name=USERS_STREAM,
        subjects=[USERS_DELETED],
        storage=StorageType.FILE,
    ),
)


def progress_subject(build_id: str) -> str:
    """Where the progress of a build goes by."""
    return f"uhm.builds.{build_id}.progress"


def cancel_subject(build_id: str) -> str:
    """Where the wish to cancel a build goes by."""
    return f"uhm.builds.{build_id}.cancel"


def secrets_subject(build_id: str) -> str:
    """Where the secrets of a build are asked for."""
    return f"uhm.builds.{build_id}.secrets"


def publication_progress_subject(publication_id: str) -> str:
    """Where the progress of a publication goes by."""
    return f"uhm.publications.{publication_id}.progress"


def publication_cancel_subject(publication_id: str) -> str:
    """Where the wish to cancel a publication goes by."""
    return f"uhm.publications.{publication_id}.cancel"


class EventBus:
    """A connection to NATS that is there when NATS is. `run` keeps it; everything else raises Unavailable meanwhile."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._client: Client | None = None
        self._linked = asyncio.Event()
        self._connected = asyncio.Event()

    async def run(self) -> None:
        """Connects, provisions the streams, and stays connected until cancelled.

        The streams are looked after at every new connection: a server may come back without what it had.
        """
        try:
            self._client = await self._connect()
            while True:
                await self._linked.wait()
                self._linked.clear()
                await self._provision(self._client)
        finally:
            await self.close()

    async def _connect(self) -> Client:
        """Tries until there is a server. nats-py does so too, except where the server refuses us."""
        log.info("events.connecting")
        while True:
            try:
                client = await self._connect_once()
            except (OSError, NatsError, TimeoutError) as error:
                log.warning("events.unreachable", error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._linked.set()
                return client

    async def _connect_once(self) -> Client:
        """Has nats-py connect, which may lose a cancellation (bpo-37658) and go on: it is cancelled until it ends."""
        connecting = asyncio.create_task(
            nats.connect(
                self._url,
                name=self._name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RETRY_SECONDS,
                error_cb=_ignore_error,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._reconnected,
                pending_size=0,
            )
        )
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            while not connecting.done():
                connecting.cancel()
                await asyncio.wait([connecting], timeout=CANCEL_AGAIN_SECONDS)
            if not connecting.cancelled() and connecting.exception() is None:
                await connecting.result().close()
            raise

    async def _provision(self, client: Client) -> None:
        """Makes or updates the streams; tries until that is done or the connection is lost."""
        stream = client.jetstream()
        while client.is_connected and not self._connected.is_set():
            try:
                for config in STREAMS:
                    try:
                        await stream.add_stream(config)
                    except APIError:
                        await stream.update_stream(config)
            except (OSError, NatsError, APIError, TimeoutError) as error:
                log.warning("events.unprovisioned", error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if client.is_connected:
                    self._connected.set()
                    log.info("events.connected")

    async def _disconnected(self) -> None:
        self._connected.clear()
        if self._client is not None:
            log.warning("events.disconnected")

    async def _reconnected(self) -> None:
        self._linked.set()

    async def wait_connected(self) -> None:
        """Waits until NATS is there."""
        await self._connected.wait()

    @property
    def client(self) -> Client:
        """The connected client. Raises Unavailable."""
        if self._client is None or not self._connected.is_set():
            raise Unavailable("NATS does not answer.", hint="Try again.")
        return self._client

    @property
    def stream(self) -> JetStreamContext:
        """JetStream of the connected client. Raises Unavailable."""
        return self.client.jetstream()

    async def publish_durably(self, subject: str, payload: dict[str, Any], *, message_id: str) -> None:
        """Publishes to a stream and waits until it is stored; the same id is stored once. Raises Unavailable."""
        try:
            await self.stream.publish(subject, encode(payload), headers={"Nats-Msg-Id": message_id}, timeout=5)
        except (NatsError, APIError, TimeoutError, OSError) as error:
            raise Unavailable("NATS did not store the event.", hint="Try again.", subject=subject) from error

    async def publish(self, subject: str, payload: dict[str, Any]) -> None:
        """Publishes to whoever listens now; nobody is a possible number, and so is NATS being down."""
        try:
            await self.client.publish(subject, encode(payload))
        except (NatsError, Unavailable, OSError):
            log.debug("events.dropped", subject=subject)

    async def close(self) -> None:
        """Ends the connection."""
        client, self._client = self._client, None
        self._connected.clear()
        if client is not None:
            await client.close()


def encode(payload: dict[str, Any]) -> bytes:
    """An event's payload on the wire: JSON."""
    return json.dumps(payload, separators=(",", ":")).encode()


async def _ignore_error(_error: Exception) -> None:
    """nats-py tells every failed attempt to reconnect here; `_disconnected` has said it once already."""
