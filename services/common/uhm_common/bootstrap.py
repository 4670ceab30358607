"""From settings to a serving process: gRPC with health and reflection, background tasks, signals, a drained end."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from uhm_common.errors import UhmError, Unavailable
from uhm_common.logs import configure_logs, get_logger
from uhm_common.reflection import add_reflection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from uhm_common.tls import ServerTls

__all__ = ["GRPC_OPTIONS", "Server", "main", "stop_requested"]

log = get_logger()

GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
DRAIN_SECONDS = 5.0

SettingsType = TypeVar("SettingsType", bound=BaseSettings)


def stop_requested() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


def main(service: str, settings_type: type[SettingsType], run: Callable[[SettingsType], Awaitable[None]]) -> None:
    """The body of every `__main__`: reads the settings, sets up the log, runs, and exits with 0 or 1.

    Settings that do not fit, and errors with a message for the user, are one line each on standard error.
    """
    try:
        settings = settings_type()
        configure_logs(service=service, level=getattr(settings, "log_level", "info"))
        asyncio.run(_run(run(settings)))
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in ("UHM", *problem["loc"])).upper()
            told = f"{name}: {problem['msg']}" if problem["loc"] else problem["msg"].removeprefix("Value error, ")
            sys.stderr.write(f"{service}: {told}\n")
        sys.exit(1)
    except (UhmError, ExceptionGroup) as raised:
        refusal = _only(raised)
        if not isinstance(refusal, UhmError):
            raise
        sys.stderr.write(f"{service}: {refusal}{_cause(refusal)}\n")
        sys.exit(1)


def _cause(refusal: UhmError) -> str:
    """Why something does not answer, for whoever starts the service; clients are not told."""
    cause = str(refusal.__cause__ or "").partition("\n")[0]
    return f" ({cause})" if cause and isinstance(refusal, Unavailable) else ""


def _only(error: Exception) -> Exception:
    """What a task group of tasks raised of which one failed: what that one did."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _run(work: Awaitable[None]) -> None:
    await work


@dataclass(slots=True, kw_only=True)
class Server:
    """A gRPC server of one service.

    `add` registers the servicers on it; `services` are their full names, for health and reflection. Background work is
    started before it serves and cancelled after it has stopped; when one ends by itself, or raises, the process ends.
    With `tls` it is served over TLS only. `ending` is called once it is told to stop: it ends streams that would go on.
    """

    listen: str
    services: Sequence[str]
    add: Callable[[grpc.aio.Server], None]
    interceptors: Sequence[Any] = ()
    tls: ServerTls | None = None
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=tuple)
    ending: Callable[[], None] = lambda: None

    async def serve(self) -> None:
        """Serves until SIGTERM or SIGINT, then lets running calls end for a few seconds."""
        stop = stop_requested()
        server = grpc.aio.server(interceptors=self.interceptors, options=GRPC_OPTIONS)
        self.add(server)
        states = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(states, server)
        add_reflection(server, self.services)
        bind(server, self.listen, tls=self.tls)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_endless(work)) for work in self.background]
            try:
                await server.start()
                for name in ("", *self.services):
                    await states.set(name, health_pb2.HealthCheckResponse.SERVING)
                log.info("server.serving", listen=self.listen)
                await stop.wait()
            finally:
                self.ending()
                await states.enter_graceful_shutdown()
                await server.stop(DRAIN_SECONDS)
                for task in running:
                    task.cancel()
        log.info("server.stopped")


def bind(server: grpc.aio.Server, listen: str, *, tls: ServerTls | None = None) -> None:
    """Opens the port, in the clear without `tls`. Raises UhmError where it is taken, or a TLS file cannot be used."""
    credentials = tls.credentials() if tls else None
    try:
        bound = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError:
        bound = 0
    if not bound:
        raise UhmError(
            f"Cannot listen on {listen}: it is taken or not an address of this machine.", hint="Choose another."
        )


async def _endless(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await work()
    message = f"background work ended: {work!r}"
    raise RuntimeError(message)
