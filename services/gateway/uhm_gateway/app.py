"""The only wiring: settings → API → upstreams → the REST application and the gRPC server, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import uvicorn
from grpc_health.v1 import health_pb2_grpc

from uhm_common.bootstrap import stop_requested
from uhm_common.callers.verifier import remote_verification
from uhm_common.errors import UhmError
from uhm_common.logs import get_logger
from uhm_common.reflection import add_reflection
from uhm_gateway.docs.routes import page_routes
from uhm_gateway.errors import ConfigurationError
from uhm_gateway.forwarding.admit import Admitting, StreamsAdmitting
from uhm_gateway.forwarding.forward import Forwarder
from uhm_gateway.forwarding.introspect import UpstreamHealth
from uhm_gateway.http.access_log import AccessLog
from uhm_gateway.limits.admission import Admission
from uhm_gateway.mapping.descriptors import load_api, packaged_descriptor_set
from uhm_gateway.rest.endpoint import Limits
from uhm_gateway.rest.transcoder import Transcoder
from uhm_gateway.rest.websocket import WebSocketProtocol
from uhm_gateway.server.front import Front
from uhm_gateway.server.slow_clients import Guard
from uhm_gateway.upstream.upstreams import Upstreams, server_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from starlette.types import ASGIApp

    from uhm_common.callers.verifier import TokenVerifier
    from uhm_gateway.mapping.descriptors import Api
    from uhm_gateway.settings import GatewaySettings

__all__ = ["KEEPALIVE", "listening", "serve"]

log = get_logger()

BACKLOG = 2048
# After how many seconds of silence a client's system is asked whether it is there, how often, and how many times.
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
GC_OBJECTS = 10_000


async def serve(settings: GatewaySettings) -> None:
    """Serves both ports until SIGTERM or SIGINT, then drains.

    Raises UhmError where descriptors, routes or ports do not fit; nothing is served then.
    """
    stop = stop_requested()
    api = load_api(settings.descriptor_set or packaged_descriptor_set())
    routes = settings.all_routes()
    if not routes:
        raise ConfigurationError("No service has a route.", hint="Give --route PACKAGE.SERVICE=HOST:PORT.")
    tls = settings.services_tls
    async with (
        _verifier(settings) as verifier,
        Upstreams(
            api, routes, message_limit=settings.message_limit, keepalive_seconds=settings.keepalive_seconds, tls=tls
        ) as upstreams,
    ):
        limits = Limits(
            body=settings.body_limit,
            upload=settings.upload_limit,
            body_seconds=settings.body_timeout_seconds,
            unary_seconds=settings.unary_timeout_seconds,
        )
        admission = Admission(settings.capacity, verifier=verifier)
        access_log = AccessLog(level=settings.log_level)
        transcoder = Transcoder(
            api, upstreams, limits=limits, policy=settings.policy, admission=admission, access_log=access_log
        )
        health = UpstreamHealth(upstreams)
        with listening(settings.host, settings.rest_port) as listener:
            server = _grpc_server(settings, api=api, upstreams=upstreams, health=health, admission=admission)
            grpc_port = _bind(server, settings)
            await server.start()
            app = _rest_app(settings, api=api, upstreams=upstreams, transcoder=transcoder)
            guard = Guard(settings.client_limits)
            config = _rest_config(app, settings, guard=guard)
            web = _RestServer(config, handshake_seconds=settings.head_timeout_seconds)
            serving = asyncio.create_task(web.serve(sockets=[listener]))
            # Descriptors and routes stay: no collection need look at them again. Requests make many objects, and hardly
            # any cycle, so that collections may be rare.
            gc.freeze()
            gc.set_threshold(GC_OBJECTS)
            log.info("gateway.serving", host=settings.host, rest=listener.getsockname()[1], grpc=grpc_port)
            async with _in_background(guard.watch()):
                await _either(stop, serving)
            health.stop()
            web.should_exit = True
            transcoder.end_streams()
            deadline = asyncio.get_running_loop().call_later(settings.drain_seconds, transcoder.end_all)
            await asyncio.gather(serving, server.stop(settings.drain_seconds))
            deadline.cancel()
            access_log.close()
    log.info("gateway.stopped")


def _rest_app(settings: GatewaySettings, *, api: Api, upstreams: Upstreams, transcoder: Transcoder) -> ASGIApp:
    app = Front(page_routes(api, upstreams, taken=transcoder.answers), transcoder, admits=transcoder.admits)
    return settings.cors.around(app) if settings.cors else app


def _rest_config(app: ASGIApp, settings: GatewaySettings, *, guard: Guard) -> uvicorn.Config:
    protocol: Any = guard.protocol
    tls = settings.server_tls
    context = tls.context() if tls else None
    return uvicorn.Config(
        app,
        http=protocol,
        ws=WebSocketProtocol,
        ws_max_size=settings.body_limit,
        ws_per_message_deflate=False,
        ssl_context_factory=(lambda _config, _default: context) if context else None,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        # Only where a client does not read what end_all told it.
        timeout_graceful_shutdown=round(settings.drain_seconds) + 1,
    )


class _RestServer(uvicorn.Server):
    """Leaves the signals to whoever runs it beside the other server, and bounds TLS handshakes in time."""

    def __init__(self, config: uvicorn.Config, *, handshake_seconds: float) -> None:
        super().__init__(config)
        self._handshake_seconds = handshake_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves on these sockets, as uvicorn does where it is given some, except for the bound."""
        config = self.config
        make: Any = config.http_protocol_class
        protocol = partial(make, config=config, server_state=self.server_state, app_state={})
        create = partial(
            asyncio.get_running_loop().create_server,
            protocol,
            ssl=config.ssl,
            ssl_handshake_timeout=self._handshake_seconds if config.ssl else None,
        )
        self.servers = [await create(sock=each, backlog=config.backlog) for each in sockets or ()]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _grpc_server(
    settings: GatewaySettings, *, api: Api, upstreams: Upstreams, health: UpstreamHealth, admission: Admission
) -> grpc.aio.Server:
    options = [*server_options(message_limit=settings.message_limit), *settings.grpc_limits]
    server = grpc.aio.server(options=options)
    proxies = settings.policy.proxies
    forwarder = Forwarder(upstreams, proxies=proxies)
    server.add_generic_rpc_handlers((Admitting(forwarder, admission=admission, proxies=proxies),))
    beside: Any = StreamsAdmitting(server, admission=admission, proxies=proxies)
    health_pb2_grpc.add_HealthServicer_to_server(health, beside)
    add_reflection(beside, [upstream.service.full_name for upstream in upstreams], pool=api.pool)
    return server


def _bind(server: grpc.aio.Server, settings: GatewaySettings) -> int:
    """Opens the gRPC port and answers its number, which the system chooses for 0."""
    host, port, tls = settings.host, settings.grpc_port, settings.server_tls
    with listening(host, port):
        pass  # grpc writes lines of its own about a port in use; this tells it as the REST port does
    address = f"{_bracketed(host)}:{port}"
    try:
        return server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise _unusable(host, port) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket of our own, so that a port in use is told like every other error."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise _unusable(host, port) from error
    with listener:
        # asyncio sets this only for sockets made with an explicit protocol number, which create_server's are not.
        # Accepted sockets inherit it; without it a response's body waits 40 ms for its head to be acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A client that vanished without a word would otherwise keep its stream for as long as that is silent.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        yield listener


def _unusable(host: str, port: int) -> UhmError:
    return UhmError(
        f"Cannot listen on {_bracketed(host)}:{port}: it is taken or not an address of this machine.",
        hint="Choose another.",
    )


@contextlib.asynccontextmanager
async def _verifier(settings: GatewaySettings) -> AsyncIterator[TokenVerifier | None]:
    """Who tells users apart for the limits; nobody where the API is not this project's own."""
    if settings.descriptor_set is not None:
        yield None
        return
    async with remote_verification(settings) as verification, _in_background(verification.follower.run()):
        yield verification.verifier


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs something beside the context, and ends it with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _either(stop: asyncio.Event, serving: asyncio.Task[None]) -> None:
    """Waits for the signal, or for the REST server to end by itself, which it only does by failing."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
