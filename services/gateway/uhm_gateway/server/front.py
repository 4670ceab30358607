"""The whole REST port as one ASGI application: pages and API side by side, and CORS before both where it is configured.

The API's requests do not pass through Starlette, whose layers would cost each of them more than finding its binding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from uhm_common.callers.calls import REQUEST_ID
from uhm_gateway.docs.routes import PROBES, refuse
from uhm_gateway.http.compress import Gzipped
from uhm_gateway.http.metadata import PREFIX, request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Cors", "Front"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ASKED = (
    "Authorization",
    "Baggage",
    "Content-Encoding",
    "Content-Type",
    "Grpc-Timeout",
    "Idempotency-Key",
    "If-None-Match",
    "Traceparent",
    "Tracestate",
    "X-Request-Id",
)
_SHOWN = ("ETag", "Retry-After", "WWW-Authenticate", "X-Request-Id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """What pages of other origins may do (https://fetch.spec.whatwg.org/#http-cors-protocol).

    `metadata` are the keys that clients may set and see as `Grpc-Metadata-KEY`; those with a wildcard cannot be listed,
    and are for clients outside of browsers only.
    """

    origins: tuple[str, ...]
    credentials: bool
    max_age: int
    metadata: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application behind these rules."""
        prefix = PREFIX.decode().title()
        metadata = [f"{prefix}{key}" for key in self.metadata if not key.endswith("*")]
        ruled = CORSMiddleware(
            app,
            allow_origins=self.origins,
            allow_methods=_METHODS,
            allow_headers=[*_ASKED, *metadata],
            allow_credentials=self.credentials,
            expose_headers=[*_SHOWN, *metadata, *self.shown],
            max_age=self.max_age,
        )
        return _Identified(ruled)  # preflights are answered by the rules themselves


class Front:
    """Pages where one begins with the path's first segment, the API otherwise; pages fall back to the API, too.

    `admits` says whether a page may be answered, and answers where it may not; probes always are.
    """

    def __init__(
        self,
        pages: Sequence[BaseRoute],
        api: ASGIApp,
        *,
        admits: Callable[[Scope, Receive, Send], Awaitable[bool]],
    ) -> None:
        app = Starlette(routes=pages, exception_handlers={HTTPException: refuse})
        app.router.redirect_slashes = False
        app.router.default = api
        self._pages = _Identified(Gzipped(app))
        self._of_pages = frozenset(_first_segment(getattr(route, "path", "/")) for route in pages)
        self._api = api
        self._admits = admits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path = scope["path"]
        if scope["type"] != "http" or _first_segment(path) not in self._of_pages:
            await self._api(scope, receive, send)
        elif path in PROBES or await self._admits(scope, receive, send):
            await self._pages(scope, receive, send)


class _Identified:
    """An application whose every answer says which request it is for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        named = (REQUEST_ID.encode(), request_id(given).encode())

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and named[0] not in dict(message["headers"]):
                message["headers"] = [*message["headers"], named]
            await send(message)

        await self._app(scope, receive, send_named)


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]
