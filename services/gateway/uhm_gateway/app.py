"""The only wiring: settings → API → upstreams → the REST application and the gRPC server, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import grpc
import uvicorn
from grpc_health.v1 import health_pb2_grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from uhm_common.bootstrap import stop_requested
from uhm_common.errors import UhmError
from uhm_common.logs import get_logger
from uhm_gateway.descriptors import load_api, packaged_descriptor_set
from uhm_gateway.endpoint import Limits
from uhm_gateway.errors import ConfigurationError
from uhm_gateway.forward import Forwarder
from uhm_gateway.introspect import UpstreamHealth, add_reflection
from uhm_gateway.pages import page_routes, refuse
from uhm_gateway.rest import Transcoder
from uhm_gateway.upstreams import Upstreams, channel_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uhm_gateway.descriptors import Api
    from uhm_gateway.settings import GatewaySettings

__all__ = ["serve"]

log = get_logger()

BACKLOG = 2048


async def serve(settings: GatewaySettings) -> None:
    """Serves both ports until SIGTERM or SIGINT, then drains.

    Raises UhmError where descriptors, routes or ports do not fit; nothing is served then.
    """
    stop = stop_requested()
    api = load_api(settings.descriptor_set or packaged_descriptor_set())
    routes = settings.all_routes()
    if not routes:
        raise ConfigurationError("No service has a route.", hint="Give --route PACKAGE.SERVICE=HOST:PORT.")
    async with Upstreams(api, routes, message_limit=settings.message_limit) as upstreams:
        limits = Limits(body=settings.body_limit, upload=settings.upload_limit)
        transcoder = Transcoder(api, upstreams, limits=limits)
        health = UpstreamHealth(upstreams)
        with _listening(settings.host, settings.rest_port) as listener:
            front = _grpc_server(settings, api=api, upstreams=upstreams, health=health)
            grpc_port = _bind(front, settings.host, settings.grpc_port)
            await front.start()
            web = _RestServer(_rest_config(_rest_app(api, upstreams, transcoder), settings))
            serving = asyncio.create_task(web.serve(sockets=[listener]))
            log.info("gateway.serving", host=settings.host, rest=listener.getsockname()[1], grpc=grpc_port)
            await _either(stop, serving)
            health.stop()
            web.should_exit = True
            transcoder.end_streams()
            deadline = asyncio.get_running_loop().call_later(settings.drain_seconds, transcoder.end_all)
            await asyncio.gather(serving, front.stop(settings.drain_seconds))
            deadline.cancel()
    log.info("gateway.stopped")


def _rest_app(api: Api, upstreams: Upstreams, transcoder: Transcoder) -> Starlette:
    app = Starlette(
        routes=page_routes(api, upstreams, taken=transcoder.answers), exception_handlers={HTTPException: refuse}
    )
    app.router.redirect_slashes = False
    app.router.default = transcoder
    return app


def _rest_config(app: Starlette, settings: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Only where a client does not read what end_all told it.
        timeout_graceful_shutdown=round(settings.drain_seconds) + 1,
    )


class _RestServer(uvicorn.Server):
    """Leaves the signals to whoever runs it beside the other server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _grpc_server(
    settings: GatewaySettings, *, api: Api, upstreams: Upstreams, health: UpstreamHealth
) -> grpc.aio.Server:
    options = [("grpc.so_reuseport", 0), *channel_options(message_limit=settings.message_limit)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Forwarder(upstreams),))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add_reflection(server, [upstream.service.full_name for upstream in upstreams], pool=api.pool)
    return server


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    """Opens the gRPC port and answers its number, which the system chooses for 0."""
    with _listening(host, port):
        pass  # grpc writes lines of its own about a port in use; this tells it as the REST port does
    try:
        return server.add_insecure_port(f"{_bracketed(host)}:{port}")
    except RuntimeError as error:
        raise _unusable(host, port) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
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
        yield listener


def _unusable(host: str, port: int) -> UhmError:
    return UhmError(
        f"Cannot listen on {_bracketed(host)}:{port}: it is taken or not an address of this machine.",
        hint="Choose another.",
    )


async def _either(stop: asyncio.Event, serving: asyncio.Task[None]) -> None:
    """Waits for the signal, or for the REST server to end by itself, which it only does by failing."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
