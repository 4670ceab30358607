"""gzip, in requests and in answers."""

import gzip
import zlib

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from uhm_gateway.errors import BadRequest, UnsupportedMediaType
from uhm_gateway.http.compress import MEMBERS, PIECE_BYTES, Gzipped, gunzipped, gzipped, quality, shrinks, wants_gzip


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("GZIP, deflate", True),
        ("br;q=1.0, gzip;q=0.2", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("gzip;q=0, x-gzip", False),
        ("br", False),
        ("identity", False),
        ("", False),
        ("gzip;q=yes", False),
        ("gzip ; q=0.5", True),
        ("gzipped", False),
    ],
)
def test_who_wants_it(header, wanted):
    assert wants_gzip(header) is wanted


@pytest.mark.parametrize(
    ("header", "weight"), [("a, b;q=0.3", 0.3), ("b;level=1;q=0.4", 0.4), ("b;q=7", 1.0), ("b;q=-1", 0.0), ("a", 0.0)]
)
def test_weights(header, weight):
    assert quality(header, "b") == pytest.approx(weight)


@pytest.mark.parametrize(
    ("content_type", "size", "worth"),
    [
        (b"application/json", 5000, True),
        (b"text/html; charset=utf-8", 5000, True),
        (b"application/json", 100, False),
        (b"image/png", 5000, False),
        (b"application/octet-stream", 5000, False),
    ],
)
def test_what_shrinks(content_type, size, worth):
    assert shrinks(content_type, size) is worth


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_answers(size):
    assert gzip.decompress(await gzipped(b"x" * size)) == b"x" * size


async def pieces(*given):
    for piece in given:
        yield piece


async def unpack(*given, encoding="gzip"):
    return [piece async for piece in gunzipped(pieces(*given), encoding=encoding)]


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_requests(step):
    packed = gzip.compress(b"hello ") + gzip.compress(b"world")
    assert b"".join(await unpack(*(packed[at : at + step] for at in range(0, len(packed), step)))) == b"hello world"


async def test_an_empty_body_is_whole():
    assert await unpack() == []


async def test_a_bomb_comes_in_bounded_pieces():
    bomb = gzip.compress(bytes(50 * PIECE_BYTES))
    assert max(len(piece) for piece in await unpack(bomb)) <= PIECE_BYTES


@pytest.mark.parametrize(
    "body", [b"not gzip at all", gzip.compress(b"x" * 999)[:-9], gzip.compress(b"x") + b"rest", zlib.compress(b"x")]
)
async def test_broken(body):
    with pytest.raises(BadRequest):
        await unpack(body)


@pytest.mark.parametrize("step", [7, 10_000])
async def test_members_have_a_bound(step):
    """Each costs a copy of all that follows it, and an empty one has but 20 bytes."""
    packed = gzip.compress(b"") * (MEMBERS - 1) + gzip.compress(b"x")
    assert b"".join(await unpack(*(packed[at : at + step] for at in range(0, len(packed), step)))) == b"x"
    packed += gzip.compress(b"")
    with pytest.raises(BadRequest, match="members"):
        await unpack(*(packed[at : at + step] for at in range(0, len(packed), step)))


async def test_other_encodings():
    with pytest.raises(UnsupportedMediaType) as caught:
        await unpack(b"x", encoding="br")
    assert caught.value.accept_encoding == "gzip"


@pytest.fixture
def client():
    async def page(_request):
        return PlainTextResponse("x" * 5000, headers={"etag": '"1"', "vary": "accept"})

    async def small(_request):
        return PlainTextResponse("x")

    async def stream(_request):
        async def parts():
            for _ in range(3):
                yield "x" * 5000

        return StreamingResponse(parts(), media_type="text/plain")

    routes = [Route("/page", page), Route("/small", small), Route("/stream", stream)]
    transport = httpx.ASGITransport(app=Gzipped(Starlette(routes=routes)))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_a_page(client):
    answer = await client.get("/page", headers={"accept-encoding": "gzip"})
    assert answer.text == "x" * 5000
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < 200
    assert answer.headers["vary"] == "accept, accept-encoding"
    assert answer.headers["etag"] == 'W/"1"'


@pytest.mark.parametrize(
    ("path", "accepted"), [("/page", "gzip;q=0"), ("/page", "br"), ("/small", "gzip"), ("/stream", "gzip")]
)
async def test_what_goes_out_as_it_is(client, path, accepted):
    answer = await client.get(path, headers={"accept-encoding": accepted})
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
