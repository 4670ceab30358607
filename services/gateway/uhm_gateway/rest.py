"""The REST side of an API: an ASGI application that finds the binding of a request and lets it answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc

from uhm_common.errors import InternalError, UhmError
from uhm_common.logs import get_logger
from uhm_gateway.endpoint import Endpoint, Limits, OpenCalls
from uhm_gateway.errors import BadRequest, ConfigurationError
from uhm_gateway.http import ClientDisconnectedError, Exchange
from uhm_gateway.match import Router
from uhm_gateway.metadata import REQUEST_ID, request_id
from uhm_gateway.render import JSON, to_json
from uhm_gateway.status import Failure, failure_of_call, failure_of_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Receive, Scope, Send

    from uhm_gateway.descriptors import Api
    from uhm_gateway.upstreams import Upstream

__all__ = ["Transcoder"]

log = get_logger()

CLIENT_CLOSED_REQUEST = 499
# Answers hold tokens and states: neither is to be kept by anything on the way, nor guessed to be another type.
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Transcoder:
    """Serves the bindings of the upstreams' methods. Raises ConfigurationError where bindings do not fit."""

    def __init__(self, api: Api, upstreams: Iterable[Upstream], *, limits: Limits) -> None:
        self._pool = api.pool
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
        """Answers one request."""
        started = time.perf_counter()
        exchange = Exchange(scope, receive, send)
        identifier = request_id(exchange.headers)
        exchange.response_headers = [(REQUEST_ID.encode(), identifier.encode()), *_HEADERS]
        status = await self._serve(exchange, identifier)
        log.info(
            "http.answered",
            method=exchange.method,
            path=scope["path"],
            status=status,
            ms=round((time.perf_counter() - started) * 1000, 2),
            request_id=identifier,
        )

    async def _serve(self, exchange: Exchange, identifier: str) -> int:
        """Answers the request or tells what went wrong; answers the HTTP status for the log."""
        try:
            match = self._router.match(exchange.method, _path_of(exchange))
            await match.target.serve(exchange, captured=match.captured, identifier=identifier)
        except ClientDisconnectedError:
            return CLIENT_CLOSED_REQUEST
        except UhmError as error:
            return await self._fail(exchange, failure_of_error(error))
        except grpc.aio.AioRpcError as error:
            return await self._fail(exchange, failure_of_call(error))
        except Exception:
            log.exception("http.failed", request_id=identifier)
            hidden = InternalError(
                "Something went wrong on our side.", hint=f"The log has the cause under {identifier}."
            )
            return await self._fail(exchange, failure_of_error(hidden))
        return 200

    async def _fail(self, exchange: Exchange, failure: Failure) -> int:
        if not exchange.started:
            body = to_json(failure.to_json(self._pool))
            await exchange.respond(failure.http_status, content_type=JSON, body=body, headers=failure.headers)
        return failure.http_status


def _path_of(exchange: Exchange) -> str:
    try:
        return exchange.raw_path.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The path is not UTF-8.") from error
