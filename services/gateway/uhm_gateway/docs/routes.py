"""The pages beside the API: documentation at `/`, `/openapi.json`, liveness at `/healthz`, readiness at `/readyz`."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import grpc
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from uhm_gateway.docs.assets import Asset
from uhm_gateway.docs.openapi import openapi_document
from uhm_gateway.docs.page import Documentation
from uhm_gateway.mapping.render import to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from uhm_gateway.mapping.descriptors import Api
    from uhm_gateway.upstream.upstreams import Upstreams

    Endpoint = Callable[[Request], Awaitable[Response]]

__all__ = ["PROBES", "page_routes", "refuse"]

PROBES = frozenset(("/healthz", "/readyz"))
# Where the page says that the API is when it is made, which takes a while; then it is corrected for who asks.
USUALLY = "http://localhost:5000"
# Nothing comes from another host or goes to one, nothing in the text is run, and no other page can frame this one.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}


def page_routes(api: Api, upstreams: Upstreams, *, taken: Callable[[str], bool]) -> list[Route]:
    """The routes; those at a path that the API itself binds for GET, which `taken` says, are left to it."""
    served = [upstream.service.full_name for upstream in upstreams]

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        healthy = await upstreams.health()
        is_ready = all(healthy.values())
        services = {name: "serving" if well else "not serving" for name, well in sorted(healthy.items())}
        body = {"status": "ready" if is_ready else "not ready", "services": services}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    endpoints = {
        "/": _page(Documentation(api, served=served)),
        "/openapi.json": _served(Asset(to_json(openapi_document(api, served=served)), media_type="application/json")),
        **{f"/docs/{name}": _served(_packaged(name, media_type)) for name, media_type in _ASSETS.items()},
        "/healthz": live,
        "/readyz": ready,
    }
    return [Route(path, endpoint) for path, endpoint in endpoints.items() if not taken(path)]


async def refuse(_request: Request, error: Exception) -> Response:
    """Starlette's own refusals, such as a POST to a page, in the form of the API's."""
    status = getattr(error, "status_code", 500)
    code = grpc.StatusCode.UNIMPLEMENTED if status == 405 else grpc.StatusCode.NOT_FOUND
    body = {"code": code.value[0], "message": str(getattr(error, "detail", "")), "details": []}
    return JSONResponse(body, status_code=status, headers=getattr(error, "headers", None))


def _page(documentation: Documentation) -> Endpoint:
    """Answers the page to browsers and text to others, both for the address that they are asked at."""
    usual_html, usual_text = documentation.html(USUALLY), documentation.text(USUALLY)

    @lru_cache(maxsize=16)
    def html(base: str) -> Asset:
        page = usual_html.replace(USUALLY, escape(base))
        return Asset(page.encode(), media_type="text/html", headers=_PAGE_HEADERS)

    @lru_cache(maxsize=16)
    def text(base: str) -> Asset:
        return Asset(usual_text.replace(USUALLY, base).encode(), media_type="text/plain")

    async def page(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        form = html if "text/html" in request.headers.get("accept", "") else text
        return form(base).response(request)

    return page


def _served(asset: Asset) -> Endpoint:
    async def serve(request: Request) -> Response:
        return asset.response(request)

    return serve


def _packaged(name: str, media_type: str) -> Asset:
    return Asset(files("uhm_gateway.docs").joinpath("static", name).read_bytes(), media_type=media_type)
