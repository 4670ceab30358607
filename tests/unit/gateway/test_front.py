"""Pages and API side by side."""

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from uhm_gateway.front import Cors, Front


async def page(_request):
    return PlainTextResponse("page " * 1000)


async def api(scope, receive, send):
    await PlainTextResponse("api")(scope, receive, send)


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway")


@pytest.fixture
def front():
    return Front([Route("/", page), Route("/docs.json", page), Mount("/assets", routes=[Route("/a.js", page)])], api)


@pytest.mark.parametrize(
    ("path", "answered"),
    [
        ("/", "page"),
        ("/docs.json", "page"),
        ("/assets/a.js", "page"),
        ("/docs.json/more", "api"),
        ("/v1/things", "api"),
    ],
)
async def test_who_answers(front, path, answered):
    async with client(front) as http:
        assert (await http.get(path)).text.split()[0] == answered


async def test_pages_are_identified_and_compressed(front):
    async with client(front) as http:
        answer = await http.get("/", headers={"x-request-id": "mine", "accept-encoding": "gzip"})
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["content-encoding"] == "gzip"


async def test_a_page_takes_get_only(front):
    async with client(front) as http:
        answer = await http.post("/docs.json")
    assert (answer.status_code, answer.json()["code"]) == (405, 12)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert answer.headers["x-request-id"]


async def test_other_origins_may_send_the_metadata_that_is_allowed(front):
    app = Cors(
        origins=("https://console.example",), credentials=False, max_age=5, metadata=("colour", "acme-*")
    ).around(front)
    async with client(app) as http:
        answer = await http.options(
            "/v1/things",
            headers={
                "origin": "https://console.example",
                "access-control-request-method": "DELETE",
                "access-control-request-headers": "grpc-metadata-colour,idempotency-key",
            },
        )
    assert answer.status_code == 200
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["access-control-max-age"] == "5"
    assert answer.headers["x-request-id"]
