"""The pages beside the API, as their routes answer them."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from uhm_gateway.docs.assets import Asset
from uhm_gateway.docs.page import Documentation
from uhm_gateway.docs.routes import page_routes
from uhm_gateway.mapping.descriptors import load_api, packaged_descriptor_set


def request(path: str = "/", *, host: str = "h:1", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"host", host.encode()))
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "scheme": "http", "headers": raw}
    return Request(scope | {"root_path": "", "server": ("h", 1)})


@pytest.fixture
def routes(api):
    upstreams = [SimpleNamespace(service=service) for service in api.services]
    return {route.path: route.endpoint for route in page_routes(api, upstreams, taken=lambda _path: False)}


def root_of_ours():
    ours = load_api(packaged_descriptor_set())
    upstreams = [SimpleNamespace(service=service) for service in ours.services]
    return next(route.endpoint for route in page_routes(ours, upstreams, taken=lambda _path: False))


def test_an_api_keeps_its_own_paths(api):
    routes = page_routes(api, [], taken=lambda path: path in {"/", "/openapi.json"})
    assert {route.path for route in routes} == {"/docs/page.css", "/docs/page.js", "/healthz", "/readyz"}


async def test_browsers_get_a_page_and_others_text(routes):
    page = await routes["/"](request(accept="text/html,application/xhtml+xml"))
    text = await routes["/"](request(accept="*/*"))
    assert page.media_type == "text/html"
    assert text.media_type == "text/plain"
    assert "accept" in page.headers["vary"]
    assert page.headers["etag"] != text.headers["etag"]


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
async def test_commands_are_for_the_address_that_was_asked(accept):
    root = root_of_ours()
    for host in ("a.example", "b.example:9"):
        answer = await root(request(host=host, accept=accept))
        assert f"http://{host}/api/v1".encode() in answer.body
        assert b"localhost:5000" not in answer.body


async def test_an_address_cannot_put_markup_into_the_page():
    answer = await root_of_ours()(request(host='a"><script>x</script>', accept="text/html"))
    assert b"<script>x" not in answer.body


async def test_the_page_is_rendered_once(monkeypatch):
    """It takes too long to be made for every name that anybody thinks of."""
    rendered = []
    html = Documentation.html
    monkeypatch.setattr(Documentation, "html", lambda self, base: rendered.append(base) or html(self, base))
    root = root_of_ours()
    for host in ("a.example", "b.example:9"):
        await root(request(host=host, accept="text/html"))
    assert len(rendered) == 1


async def test_the_page_may_only_talk_to_where_it_came_from(routes):
    page = await routes["/"](request(accept="text/html"))
    policy = dict(part.split(maxsplit=1) for part in page.headers["content-security-policy"].split(";"))
    assert policy.pop("img-src") == "'self' data:"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_the_document_is_json(routes):
    answer = await routes["/openapi.json"](request())
    assert answer.media_type == "application/json"
    assert json.loads(answer.body)["openapi"].startswith("3.1")


@pytest.mark.parametrize(("name", "media_type"), [("page.css", "text/css"), ("page.js", "text/javascript")])
async def test_what_the_page_needs_is_served(routes, name, media_type):
    assert (await routes[f"/docs/{name}"](request())).media_type == media_type


ASSET = Asset(b"words " * 100, media_type="text/plain", headers={"x-own": "1"})
TAG = ASSET.response(request()).headers["etag"]


@pytest.mark.parametrize(
    ("asked", "is_known"),
    [(TAG, True), (TAG.removeprefix("W/"), True), (f'"x", {TAG}', True), ("*", True), ('"x"', False), ("", False)],
)
def test_what_a_client_has_is_not_sent_again(asked, is_known):
    answer = ASSET.response(request(if_none_match=asked))
    assert (answer.status_code, answer.body == b"") == ((304, True) if is_known else (200, False))
    assert answer.headers["etag"] == TAG
    assert answer.headers["x-own"] == "1"


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
    ],
)
def test_compression(accepted, is_compressed):
    answer = ASSET.response(request(accept_encoding=accepted))
    assert (answer.headers.get("content-encoding") == "gzip") is is_compressed
    assert (gzip.decompress(answer.body) if is_compressed else answer.body) == b"words " * 100
    assert "accept-encoding" in answer.headers["vary"]


def test_other_content_has_another_tag():
    assert Asset(b"x", media_type="text/plain").response(request()).headers["etag"] != TAG
