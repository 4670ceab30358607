"""The REST side of an API: an ASGI application that finds the binding of a request and lets it answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from uhm_common.callers.calls import Call
from uhm_common.errors import InternalError, UhmError
from uhm_common.logs import get_logger
from uhm_gateway.errors import BadRequest, ConfigurationError, MethodNotAllowed
from uhm_gateway.http.exchange import ClientDisconnectedError, Exchange
from uhm_gateway.http.metadata import Allowed, request_id
from uhm_gateway.http.status import Failure, failure_of_call, failure_of_error
from uhm_gateway.limits.clients import TrustedProxies, shown_agent
from uhm_gateway.mapping.match import Match, Router
from uhm_gateway.mapping.render import JSON, to_json
from uhm_gateway.rest.endpoint import Endpoint, Limits, OpenCalls
from uhm_gateway.rest.websocket import Conversation, Socket, check_origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Receive, Scope, Send

    from uhm_gateway.http.access_log import AccessLog
    from uhm_gateway.http.exchange import Request
    from uhm_gateway.http.metadata import Headers
    from uhm_gateway.limits.admission import Admission
    from uhm_gateway.limits.slots import Taken
    from uhm_gateway.mapping.descriptors import Api
    from uhm_gateway.upstream.upstreams import Upstream

__all__ = ["Policy", "Transcoder"]

log = get_logger()

CLIENT_CLOSED_REQUEST = 499
# In which order a WebSocket, whose handshake is always a GET, looks for a streaming method at its path.
STREAMING_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What of a client is believed, and what it may: metadata of its own, proxies before it, origins of its pages."""

    metadata: Allowed = field(default_factory=Allowed)
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    origins: tuple[str, ...] = ()


class Transcoder:
    """Serves the bindings of the upstreams' methods. Raises ConfigurationError where bindings do not fit."""

    def __init__(
        self,
        api: Api,
        upstreams: Iterable[Upstream],
        *,
        limits: Limits,
        policy: Policy,
        admission: Admission,
        access_log: AccessLog,
    ) -> None:
        self._pool = api.pool
        self._access_log = access_log
        self._admission = admission
        self._policy = policy
        self._proxy_header = policy.proxies.header.encode()
        self._open_calls = OpenCalls()
        self._router: Router[Endpoint] = Router()
        for upstream in upstreams:
            for method in upstream.service.methods:
                for binding in method.bindings:
                    endpoint = Endpoint(
                        method,
                        binding,
                        upstream=upstream,
                        pool=api.pool,
                        limits=limits,
                        allowed=policy.metadata,
                        open_calls=self._open_calls,
                    )
                    try:
                        self._router.add(binding.http_method, binding.template, endpoint)
                    except ConfigurationError as error:
                        raise ConfigurationError(f"{method.descriptor.full_name}: {error}") from error

    def answers(self, path: str) -> bool:
        """Whether the API itself binds GET at this path."""
        try:
            self._router.match("GET", path)
        except UhmError:
            return False
        return True

    def end_streams(self) -> None:
        """Ends the streams under way, each with an error that says so; for when the gateway stops."""
        self._open_calls.end_streams()

    def end_all(self) -> None:
        """Ends everything under way; for when it has had its time."""
        self._open_calls.end_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or holds one conversation over a WebSocket."""
        started = time.perf_counter()
        if scope["type"] == "websocket":
            socket = Socket(scope, receive, send)
            caller = self._caller(socket)
            method, status = "WEBSOCKET", await self._converse(socket, caller)
        else:
            exchange = Exchange(scope, receive, send)
            caller = self._caller(exchange)
            exchange.response_headers = _standing_headers(caller)
            method, status = exchange.method, await self._serve(exchange, caller)
        self._access_log.answered(caller, method=method, path=scope["path"], status=status, started=started)

    async def admits(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Counts a request for a page beside the API for its address; where there are too many, tells its client."""
        exchange = Exchange(scope, receive, send)
        caller = self._caller(exchange)
        exchange.response_headers = _standing_headers(caller)
        try:
            await self._admission.caller(address=caller.address, authorization="")
        except UhmError as error:
            await self._refuse(exchange, error, caller)
            return False
        return True

    def _caller(self, request: Request) -> Call:
        proxies = self._policy.proxies
        said = request.values(self._proxy_header) if proxies.networks else ()
        return Call(
            request_id=request_id(request.header(b"x-request-id")),
            address=proxies.address(request.peer, said),
            user_agent=shown_agent(request.header(b"user-agent")),
        )

    async def _serve(self, exchange: Exchange, caller: Call) -> int:
        """Answers the request or tells what went wrong; answers the HTTP status for the log."""
        try:
            who = await self._count(exchange, caller)
            match = self._match(exchange.method, exchange)
            with self._slot(match.target, who):
                await match.target.serve(exchange, captured=match.captured, caller=caller)
        except ClientDisconnectedError:
            return CLIENT_CLOSED_REQUEST
        except Exception as error:  # noqa: BLE001 - every error becomes a status, here
            return await self._refuse(exchange, error, caller)
        return exchange.status

    async def _refuse(self, exchange: Exchange, error: Exception, caller: Call) -> int:
        """Tells an error, unless an answer has begun; answers its status."""
        failure = _failure(error, exchange, caller)
        if not exchange.started:
            body = to_json(failure.to_json(self._pool))
            await exchange.respond(failure.http_status, content_type=JSON, body=body, headers=failure.headers)
        return failure.http_status

    async def _converse(self, socket: Socket, caller: Call) -> int:
        """Holds the conversation or refuses it; answers its closing code, or the HTTP status of the refusal."""
        try:
            check_origin(socket, allowed=self._policy.origins)
            who = await self._count(socket, caller)
            match = self._match_stream(socket)
            conversation = Conversation(match.target, socket, pool=self._pool)
            headers = _standing_headers(caller)
            with self._slot(match.target, who):
                return await conversation.hold(captured=match.captured, caller=caller, headers=headers)
        except ClientDisconnectedError:
            return CLIENT_CLOSED_REQUEST
        except Exception as error:  # noqa: BLE001 - every error becomes a status, here
            failure = _failure(error, socket, caller)
            if not socket.accepted:
                body = to_json(failure.to_json(self._pool))
                await socket.refuse(failure, body=body, headers=_standing_headers(caller))
            return failure.http_status

    async def _count(self, request: Request, caller: Call) -> str:
        """Who calls, for the limits. Raises TooManyRequests."""
        return await self._admission.caller(address=caller.address, authorization=request.header(b"authorization"))

    def _slot(self, endpoint: Endpoint, who: str) -> Taken:
        method = endpoint.method
        streams = method.client_streaming or method.server_streaming
        return self._admission.slot(who, service=endpoint.upstream.service.full_name, streams=streams)

    def _match(self, method: str, request: Request) -> Match[Endpoint]:
        """The binding of a request; HEAD is answered by GET's where it has none of its own."""
        path = _path_of(request)
        try:
            return self._router.match(method, path)
        except MethodNotAllowed:
            if method != "HEAD":
                raise
            return self._router.match("GET", path)

    def _match_stream(self, socket: Socket) -> Match[Endpoint]:
        """The streaming method that a WebSocket is for."""
        for method in STREAMING_METHODS:
            try:
                match = self._match(method, socket)
            except MethodNotAllowed:
                continue
            if match.target.method.client_streaming or match.target.method.server_streaming:
                return match
        raise BadRequest("No method here streams, which is what a WebSocket is for.", hint="Send an HTTP request.")


def _standing_headers(caller: Call) -> Headers:
    """What every answer says: which request it is for, and that its type is what it says."""
    return [(b"x-request-id", caller.request_id.encode()), (b"x-content-type-options", b"nosniff")]


def _failure(error: Exception, request: Request, caller: Call) -> Failure:
    """An error as it is told; one that nobody foresaw is logged, and told without its cause."""
    token_sent = bool(request.header(b"authorization"))
    if isinstance(error, grpc.aio.AioRpcError):
        return failure_of_call(error, token_sent=token_sent)
    if not isinstance(error, UhmError):
        log.error("http.failed", request_id=caller.request_id, exc_info=error)
        error = InternalError(
            "Something went wrong on our side.", hint=f"The log has the cause under {caller.request_id}."
        )
    return failure_of_error(error, token_sent=token_sent)


def _path_of(request: Request) -> str:
    try:
        return request.raw_path.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The path is not UTF-8.") from error
