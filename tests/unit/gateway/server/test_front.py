"""Pages and API side by side."""

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from uhm_gateway.server.front import Cors, Front


async def page(_request):
    return PlainTextResponse("page " * 1000)


async def api(scope, receive, send):
    await PlainTextResponse("api")(scope, receive, send)


async def everybody(_scope, _receive, _send):
    return True


async def nobody(scope, receive, send):
    await PlainTextResponse("too many", status_code=429)(scope, receive, send)
    return False


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway")


@pytest.fixture
def front():
    return Front(pages(), api, admits=everybody)


def pages():
    routes = [Route(path, page) for path in ("/", "/docs.json", "/healthz", "/readyz")]
    return [*routes, Mount("/assets", routes=[Route("/a.js", page)])]


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


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 429), ("/docs.json", 429), ("/assets/a.js", 429), ("/healthz", 200), ("/readyz", 200), ("/v1/things", 200)],
)
async def test_only_pages_ask_whether_they_may_answer(path, status):
    """Probes are always answered, and the API counts by itself."""
    async with client(Front(pages(), api, admits=nobody)) as http:
        assert (await http.get(path)).status_code == status


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
                "access-control-request-headers": "grpc-metadata-colour,idempotency-key,baggage,content-encoding",
            },
        )
        seen = await http.get("/v1/things", headers={"origin": "https://console.example"})
    assert answer.status_code == 200
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["access-control-max-age"] == "5"
    exposed = seen.headers["access-control-expose-headers"].split(", ")
    assert "Grpc-Metadata-Colour" in [name.title() for name in exposed]
    assert not [name for name in exposed if "acme" in name.lower()]
    assert answer.headers["x-request-id"]
