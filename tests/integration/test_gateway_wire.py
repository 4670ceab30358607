"""What goes over the wire beside the messages: headers, encodings, events, WebSockets, and pages of other origins."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.echo_system import Echo, Gateway, running, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CONSOLE = "https://console.example"
LONG = "long " * 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_gateway(arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that lets pages of one other origin in, and believes proxies on loopback."""
    environment = {
        "UHM_CORS_ORIGINS": json.dumps([CONSOLE]),
        "UHM_CORS_CREDENTIALS": "true",
        "UHM_CORS_MAX_AGE": "99",
        "UHM_CORS_EXPOSED_HEADERS": '["Grpc-Metadata-Greeting"]',
        "UHM_TRUSTED_PROXIES": '["127.0.0.0/8"]',
    }
    log = tmp_path_factory.mktemp("open") / "log"
    async with running(*arguments, "--allow-metadata", "colour", log=log, environment=environment) as front:
        yield front


class TestHeaders:
    async def test_metadata_comes_in_by_an_allow_list(self, gateway: Gateway, upstream: Echo) -> None:
        headers = {
            "Grpc-Metadata-Colour": "blue",
            "Grpc-Metadata-Raw-Bin": "AP8=",
            "Grpc-Metadata-Smell": "sweet",
            "Idempotency-Key": "k1",
            "Cookie": "a=b",
        }
        await gateway.http.get("/v1/say/x", headers=headers)
        assert (upstream.metadata["colour"], upstream.metadata["raw-bin"]) == ("blue", b"\x00\xff")
        assert upstream.metadata["idempotency-key"] == "k1"
        assert not {"smell", "cookie"} & set(upstream.metadata)

    async def test_metadata_goes_out(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/say/x")
        assert answer.headers["grpc-metadata-greeting"] == "hello"
        assert answer.headers["grpc-metadata-raw-bin"] == "AP8="
        assert answer.headers["grpc-trailer-farewell"] == "bye"
        refused = await gateway.http.get("/v1/fail/5")
        assert refused.headers["grpc-trailer-farewell"] == "bye"
        assert "grpc-trailer-grpc-status-details-bin" not in (await gateway.http.get("/v1/fail/14")).headers

    @pytest.mark.parametrize(
        "path", ["/v1/say/x", "/v1/fail/5", "/v1/nowhere", "/v1/count/2", "/", "/healthz", "/v1/lost"]
    )
    async def test_every_answer_names_its_request(self, gateway: Gateway, path: str) -> None:
        answer = await gateway.http.get(path, headers={"x-request-id": "mine"})
        assert answer.headers.get_list("x-request-id") == ["mine"]
        assert len((await gateway.http.get(path)).headers["x-request-id"]) == 32

    async def test_only_the_gateway_says_where_a_call_comes_from(self, gateway: Gateway, upstream: Echo) -> None:
        forged = {
            "X-Uhm-Client-Address": "198.51.100.1",
            "Grpc-Metadata-X-Uhm-Client-Address": "198.51.100.2",
            "X-Forwarded-For": "198.51.100.3",
            "User-Agent": "test/1",
        }
        await gateway.http.get("/v1/say/x", headers=forged)
        assert upstream.metadata["x-uhm-client-address"] == "127.0.0.1"
        assert upstream.metadata["x-uhm-user-agent"] == "test/1"

    async def test_how_to_authenticate(self, gateway: Gateway) -> None:
        assert (await gateway.http.get("/v1/fail/16")).headers["www-authenticate"] == 'Bearer realm="api"'
        refused = await gateway.http.get("/v1/fail/16", headers={"authorization": "Bearer old"})
        assert refused.headers["www-authenticate"] == 'Bearer realm="api", error="invalid_token"'
        lacking = await gateway.http.get("/v1/fail/7?text=images.write")
        assert 'error="insufficient_scope", scope="images.write"' in lacking.headers["www-authenticate"]

    async def test_answers_are_kept_only_where_the_service_says_so(self, gateway: Gateway) -> None:
        assert (await gateway.http.get("/v1/say/x")).headers.get_list("cache-control") == ["no-store"]
        kept = await gateway.http.get("/v1/say/keep")
        assert kept.headers.get_list("cache-control") == ["public, max-age=60"]

    async def test_an_answer_that_the_client_has_already(self, gateway: Gateway) -> None:
        first = await gateway.http.get("/v1/say/x")
        again = await gateway.http.get("/v1/say/x", headers={"if-none-match": f'"a", {first.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        other = await gateway.http.get("/v1/say/y", headers={"if-none-match": first.headers["etag"]})
        assert (other.status_code, other.json()["text"]) == (200, "y")
        assert "etag" not in (await gateway.http.post("/v1/say", json={"text": "x"})).headers

    @pytest.mark.parametrize("path", ["/v1/say/x", "/v1/count/3", "/v1/download", "/v1/hang:stream"])
    async def test_head_is_get_without_a_body(self, gateway: Gateway, path: str) -> None:
        async with asyncio.timeout(10):
            answer = await gateway.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        if path == "/v1/say/x":
            whole = await gateway.http.get(path)
            names = ("content-type", "content-length", "etag", "grpc-metadata-greeting")
            assert [answer.headers[name] for name in names] == [whole.headers[name] for name in names]

    async def test_head_where_there_is_no_get(self, gateway: Gateway) -> None:
        answer = await gateway.http.head("/v1/say")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        refused = await gateway.http.put("/v1/say/x")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


class TestTimeouts:
    @pytest.mark.parametrize("text", ["99999999H", "99999999M", "60000000u", "9S"])
    async def test_long_ones(self, gateway: Gateway, text: str) -> None:
        for path in ("/v1/say/x", "/v1/count/2"):
            answer = await gateway.http.get(path, headers={"grpc-timeout": text})
            assert answer.status_code == 200, answer.text

    @pytest.mark.parametrize("text", ["0S", "1n", "0H"])
    async def test_short_ones(self, gateway: Gateway, text: str) -> None:
        assert (await gateway.http.get("/v1/hang", headers={"grpc-timeout": text})).status_code == 504
        stream = await gateway.http.get("/v1/hang:stream", headers={"grpc-timeout": text})
        assert '"code":4,' in stream.text.splitlines()[-1]

    @pytest.mark.parametrize("text", ["soon", "5", "1.5S", "-1S", "123456789S"])
    async def test_broken_ones(self, gateway: Gateway, text: str) -> None:
        answer = await gateway.http.get("/v1/say/x", headers={"grpc-timeout": text})
        assert (answer.status_code, "Grpc-Timeout" in answer.json()["message"]) == (400, True)


class TestGzip:
    @pytest.mark.parametrize(
        ("accepted", "text", "encoding"),
        [
            ("gzip", LONG, "gzip"),
            ("br, *;q=0.1", LONG, "gzip"),
            ("gzip;q=0", LONG, None),
            ("identity", LONG, None),
            ("gzip", "short", None),
        ],
    )
    async def test_answers(self, gateway: Gateway, accepted: str, text: str, encoding: str | None) -> None:
        answer = await gateway.http.post("/v1/say", json={"text": text}, headers={"accept-encoding": accepted})
        assert answer.json()["text"] == text
        assert answer.headers.get("content-encoding") == encoding
        assert ("accept-encoding" in answer.headers.get("vary", "")) == (text == LONG)

    @pytest.mark.parametrize(("text", "vary"), [("x" * 2000, "accept-encoding"), ("x", None)])
    async def test_what_is_known_varies_as_its_answer_does(self, gateway: Gateway, text: str, vary: str | None) -> None:
        known = {"if-none-match": (await gateway.http.get(f"/v1/say/{text}")).headers["etag"]}
        answer = await gateway.http.get(f"/v1/say/{text}", headers=known)
        assert (answer.status_code, answer.headers.get("vary")) == (304, vary)

    async def test_streams_go_out_as_they_are(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/200", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in answer.headers
        assert len(answer.text.splitlines()) == 200

    async def test_requests(self, gateway: Gateway) -> None:
        headers = {"content-encoding": "gzip"}
        said = await gateway.http.post("/v1/say", content=gzip.compress(b'{"text":"hi"}'), headers=headers)
        assert said.json()["text"] == "hi"
        joined = await gateway.http.post(
            "/v1/join", content=gzip.compress(b'{"text":"a"}{"text":"b"}'), headers=headers
        )
        assert joined.json() == {"text": "a b", "count": "2"}
        sent = await gateway.http.post("/v1/upload/x", content=gzip.compress(b"y" * 99_999), headers=headers)
        assert sent.json()["count"] == "99999"

    @pytest.mark.parametrize(
        ("encoding", "body", "status"),
        [
            ("gzip", gzip.compress(b'{"text":"' + b"x" * (20 << 20) + b'"}'), 413),
            ("gzip", b'{"text":"hi"}', 400),
            ("gzip", gzip.compress(b'{"text":"hi"}')[:-4], 400),
            ("br", b"x", 415),
            ("gzip, gzip", b"x", 415),
        ],
    )
    async def test_requests_that_are_refused(self, gateway: Gateway, encoding: str, body: bytes, status: int) -> None:
        answer = await gateway.http.post("/v1/say", content=body, headers={"content-encoding": encoding})
        assert (answer.status_code, set(answer.json())) == (status, {"code", "message", "details"})
        assert answer.headers.get("accept-encoding") == ("gzip" if status == 415 else None)


class TestEvents:
    async def test_a_stream_as_events(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/2", headers={"accept": "text/event-stream"})
        assert answer.headers["content-type"] == "text/event-stream"
        assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "accept")
        assert [json.loads(data) for data in _data(answer.text)] == [
            {"result": {"text": "", "count": "0"}},
            {"result": {"text": "", "count": "1"}},
        ]

    async def test_an_error_is_an_event_of_its_own(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/1?text=fail", headers={"accept": "text/event-stream"})
        last = answer.text.split("\n\n")[-2]
        assert last.startswith("event: error\ndata: ")
        assert json.loads(_data(last)[0])["error"]["code"] == 15

    async def test_a_stream_that_fails_at_once_has_the_errors_status(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/-1", headers={"accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")

    async def test_events_are_flushed_one_by_one(self, gateway: Gateway, upstream: Echo) -> None:
        async with gateway.http.stream("GET", "/v1/hang:stream", headers={"accept": "text/event-stream"}) as answer:
            async with asyncio.timeout(5):
                assert json.loads(_data(await anext(answer.aiter_lines()))[0])["result"]["text"] == "first"
        await asyncio.wait_for(upstream.cancelled.wait(), 5)


class TestWebSocket:
    async def test_a_conversation(self, gateway: Gateway) -> None:
        async with _opened(gateway, "/v1/chat") as socket:
            for text in ("a", "b"):
                await socket.send(json.dumps({"text": text}))
                assert json.loads(await socket.recv()) == {"result": {"text": text.upper(), "count": "0"}}
            await socket.send("")
            await socket.wait_closed()
            assert socket.close_code == 1000

    async def test_a_client_stream(self, gateway: Gateway) -> None:
        async with _opened(gateway, "/v1/join") as socket:
            for frame in ('{"text":"a"}', '{"text":"b"}', ""):
                await socket.send(frame)
            assert json.loads(await socket.recv())["result"] == {"text": "a b", "count": "2"}

    async def test_a_server_stream_without_a_body(self, gateway: Gateway) -> None:
        async with _opened(gateway, "/v1/count/2") as socket:
            assert [json.loads(frame)["result"]["count"] async for frame in socket] == ["0", "1"]

    async def test_raw_bytes_are_binary_frames(self, gateway: Gateway) -> None:
        async with _opened(gateway, "/v1/pipe/p") as socket:
            await socket.send(b"\x00\x01")
            assert await socket.recv() == b"p\x00\x01"
            await socket.send("text")
            assert await socket.recv() == b"text"

    @pytest.mark.parametrize(
        ("frame", "code", "message"),
        [
            ('{"text":"fail"}', 4404, "nobody to talk to"),
            ('{"txt":"x"}', 4400, "txt"),
            ("{", 4400, "JSON"),
            (b'{"text":"x"}', 1003, "binary"),
        ],
    )
    async def test_errors(self, gateway: Gateway, frame: str | bytes, code: int, message: str) -> None:
        async with _opened(gateway, "/v1/chat") as socket:
            await socket.send(frame)
            error = json.loads(await socket.recv())["error"]
            assert message in error["message"]
            await socket.wait_closed()
            assert socket.close_code == code

    async def test_a_frame_that_is_too_large(self, gateway: Gateway) -> None:
        async with _opened(gateway, "/v1/chat") as socket:
            with contextlib.suppress(ConnectionClosed):  # it is refused by its head, so while it is being sent
                await socket.send("x" * (9 << 20))
            await socket.wait_closed()
            assert socket.close_code == 1009

    async def test_a_client_that_closes_cancels_the_call(self, gateway: Gateway, upstream: Echo) -> None:
        async with _opened(gateway, "/v1/hang:stream") as socket:
            await socket.recv()
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    async def test_a_client_that_does_not_read_holds_the_service_back(self, gateway: Gateway, upstream: Echo) -> None:
        """The service makes more than all buffers on the way hold, and is not asked for it until somebody reads."""
        async with connect(_url(gateway, "/v1/flood"), max_queue=1, max_size=None) as socket:
            await socket.recv()
            before = -1
            async with asyncio.timeout(20):
                while upstream.flooded != before:
                    before = upstream.flooded
                    await asyncio.sleep(0.5)
            assert upstream.flooded < 200
            async with asyncio.timeout(60):
                frames = [frame async for frame in socket]
        assert len(frames) == upstream.flooded - 1 == 255

    async def test_a_gateway_that_stops_says_so(self, arguments: tuple[str, ...], tmp_path: Path) -> None:
        async with running(*arguments, log=tmp_path / "log") as front, _opened(front, "/v1/hang:stream") as socket:
            await socket.recv()
            front.process.send_signal(signal.SIGTERM)
            assert json.loads(await socket.recv())["error"]["code"] == 14
            await socket.wait_closed()
            assert socket.close_code == 1001
            assert await asyncio.wait_for(front.process.wait(), 10) == 0
        assert "Traceback" not in text_of(tmp_path / "log")

    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [
            ("/v1/nowhere", {}, 404),
            ("/v1/say/x", {}, 400),
            ("/v1/count/x", {}, 400),
            ("/v1/chat", {"origin": "https://evil.example"}, 403),
            ("/v1/chat", {"grpc-timeout": "soon"}, None),
        ],
    )
    async def test_handshakes_that_are_refused(
        self, gateway: Gateway, path: str, headers: dict[str, str], status: int | None
    ) -> None:
        if status is None:
            async with _opened(gateway, path, headers) as socket:
                assert "Grpc-Timeout" in json.loads(await socket.recv())["error"]["message"]
            return
        with pytest.raises(InvalidStatus) as caught:
            async with _opened(gateway, path, headers):
                pass
        answer = caught.value.response
        assert answer.status_code == status
        assert set(json.loads(answer.body)) == {"code", "message", "details"}
        assert answer.headers["x-request-id"]

    async def test_a_refused_handshake_is_no_fault_of_the_gateways(
        self, arguments: tuple[str, ...], tmp_path: Path
    ) -> None:
        async with running(*arguments, log=tmp_path / "log") as front:
            with pytest.raises(InvalidStatus):
                await _opened(front, "/v1/nowhere").__aenter__()
        assert '"level": "error"' not in text_of(tmp_path / "log")

    async def test_a_page_of_the_gateways_own_origin(self, gateway: Gateway) -> None:
        async with _opened(gateway, "/v1/count/0", {"origin": f"http://127.0.0.1:{gateway.rest_port}"}) as socket:
            await socket.wait_closed()
            assert socket.close_code == 1000

    async def test_a_token_in_the_header_or_as_a_subprotocol(self, gateway: Gateway, upstream: Echo) -> None:
        async with _opened(gateway, "/v1/chat", {"authorization": "Bearer one"}) as socket:
            await _said(socket)
        assert upstream.metadata["authorization"] == "Bearer one"
        async with connect(_url(gateway, "/v1/chat"), subprotocols=["bearer", "a.b-c_d"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "bearer"
            await _said(socket)
        assert upstream.metadata["authorization"] == "Bearer a.b-c_d"


class TestOtherOrigins:
    async def test_nothing_is_allowed_by_default(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/say/x", headers={"origin": CONSOLE})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await _preflight(gateway, CONSOLE)).status_code == 405

    async def test_an_allowed_origin(self, open_gateway: Gateway) -> None:
        for path in ("/v1/say/x", "/v1/nowhere", "/healthz"):
            answer = await open_gateway.http.get(path, headers={"origin": CONSOLE})
            assert answer.headers["access-control-allow-origin"] == CONSOLE
            assert answer.headers["access-control-allow-credentials"] == "true"
            exposed = answer.headers["access-control-expose-headers"]
            assert {"X-Request-Id", "Retry-After", "Grpc-Metadata-Greeting"} <= set(exposed.split(", "))
            assert "Origin" in answer.headers["vary"]

    async def test_a_preflight(self, open_gateway: Gateway) -> None:
        answer = await _preflight(open_gateway, CONSOLE, headers="authorization, content-type, grpc-metadata-colour")
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == CONSOLE
        assert answer.headers["access-control-max-age"] == "99"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "Origin" in answer.headers["vary"]

    async def test_what_is_not_allowed(self, open_gateway: Gateway) -> None:
        for answer in (
            await _preflight(open_gateway, "https://evil.example"),
            await _preflight(open_gateway, CONSOLE, headers="grpc-metadata-smell"),
        ):
            assert answer.status_code == 400
        foreign = await open_gateway.http.get("/v1/say/x", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers
        assert "Origin" in foreign.headers["vary"]

    async def test_a_web_socket_of_an_allowed_origin(self, open_gateway: Gateway) -> None:
        async with _opened(open_gateway, "/v1/count/1", {"origin": CONSOLE}) as socket:
            assert len([frame async for frame in socket]) == 1

    async def test_a_trusted_proxys_word(self, open_gateway: Gateway, upstream: Echo) -> None:
        headers = {"x-forwarded-for": "198.51.100.1, 192.0.2.7"}
        await open_gateway.http.get("/v1/say/x", headers=headers)
        assert upstream.metadata["x-uhm-client-address"] == "192.0.2.7"


def _data(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def _url(gateway: Gateway, path: str) -> str:
    return f"ws://127.0.0.1:{gateway.rest_port}{path}"


def _opened(
    gateway: Gateway, path: str, headers: dict[str, str] | None = None
) -> AbstractAsyncContextManager[ClientConnection]:
    return connect(_url(gateway, path), additional_headers=headers or {})


async def _said(socket: ClientConnection) -> None:
    await socket.send('{"text":"x"}')
    await socket.recv()


async def _preflight(gateway: Gateway, origin: str, *, headers: str = "authorization") -> httpx.Response:
    asked: dict[str, Any] = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": headers,
    }
    return await gateway.http.options("/v1/say", headers=asked)
