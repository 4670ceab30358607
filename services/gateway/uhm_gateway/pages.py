"""The pages beside the API: documentation at `/`, liveness at `/healthz`, readiness at `/readyz`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from uhm_gateway.docs import Documentation

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from uhm_gateway.descriptors import Api
    from uhm_gateway.upstreams import Upstreams

__all__ = ["page_routes", "refuse"]

# The page has one script, which copies commands; nothing comes from or goes to another host.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    "vary": "accept",
    "x-content-type-options": "nosniff",
}


def page_routes(api: Api, upstreams: Upstreams, *, taken: Callable[[str], bool]) -> list[Route]:
    """The routes; those at a path that the API itself binds for GET, which `taken` says, are left to it."""
    documentation = Documentation(api, served=frozenset(upstream.service.full_name for upstream in upstreams))

    async def page(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(documentation.html(base), headers=_PAGE_HEADERS)
        return PlainTextResponse(documentation.text(base), headers={"vary": "accept"})

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        healthy = await upstreams.health()
        is_ready = all(healthy.values())
        services = {name: "serving" if well else "not serving" for name, well in sorted(healthy.items())}
        body = {"status": "ready" if is_ready else "not ready", "services": services}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    endpoints = {"/": page, "/healthz": live, "/readyz": ready}
    return [Route(path, endpoint) for path, endpoint in endpoints.items() if not taken(path)]


async def refuse(_request: Request, error: Exception) -> Response:
    """Starlette's own refusals, such as a POST to a page, in the form of the API's."""
    status = getattr(error, "status_code", 500)
    code = grpc.StatusCode.UNIMPLEMENTED if status == 405 else grpc.StatusCode.NOT_FOUND
    body = {"code": code.value[0], "message": str(getattr(error, "detail", "")), "details": []}
    return JSONResponse(body, status_code=status, headers=getattr(error, "headers", None))
