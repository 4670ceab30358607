"""The gateway as a process, in front of real gRPC servers of an API that it has never seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.echo_system import SERVICE, Echo, Gateway, running, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# One gateway serves all tests that leave it running: to start one takes longer than most of them.
pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


class TestRest:
    async def test_unary_with_body_and_metadata(self, gateway: Gateway, upstream: Echo) -> None:
        headers = {
            "Authorization": "Bearer abc",
            "X-Request-Id": "my-id",
            "Grpc-Timeout": "5S",
            "Grpc-Metadata-Colour": "blue",
        }
        answer = await gateway.http.post("/v1/say", json={"text": "hi", "count": "7"}, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"text": "hi", "count": "7"})
        assert answer.headers["x-request-id"] == "my-id"
        assert answer.headers["grpc-metadata-greeting"] == "hello"
        assert answer.headers["grpc-trailer-farewell"] == "bye"
        assert upstream.metadata["authorization"] == "Bearer abc"
        assert upstream.metadata["x-request-id"] == "my-id"
        assert upstream.metadata["colour"] == "blue"
        assert upstream.time_left is not None
        assert 3 < upstream.time_left < 5.5  # grpc rounds up what it sends

    async def test_path_and_query(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/say/a%2Fb%20c?count=-3")
        assert answer.json() == {"text": "a/b c", "count": "-3"}

    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            (None, 200),
            ("application/x-www-form-urlencoded", 200),
            ("application/vnd.x+json; charset=utf-8", 200),
            ("text/xml", 415),
        ],
    )
    async def test_content_types(self, gateway: Gateway, content_type: str | None, status: int) -> None:
        headers = {"content-type": content_type} if content_type else {}
        answer = await gateway.http.post("/v1/say", content=b'{"text":"x"}', headers=headers)
        assert answer.status_code == status, answer.text

    async def test_an_absent_body_is_an_empty_message(self, gateway: Gateway) -> None:
        assert (await gateway.http.post("/v1/say")).json() == {"text": "", "count": "0"}

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "mentions"),
        [
            ("GET", "/v1/nowhere", b"", 404, "/v1/nowhere"),
            ("DELETE", "/v1/say", b"", 405, "POST"),
            ("POST", "/v1/say", b'{"text":', 400, "column 9"),
            ("POST", "/v1/say", b'{"txt": 1}', 400, "txt"),
            ("POST", "/v1/say", b'{"count": "x"}', 400, "count"),
            ("GET", "/v1/say/x?colour=blue", b"", 400, "colour"),
            ("GET", "/v1/say/x?count=blue", b"", 400, "count"),
            ("GET", "/v1/fail/abc", b"", 400, "count"),
            ("POST", "/v1/say", b'{"text": "' + b"x" * (9 << 20) + b'"}', 413, "larger"),
        ],
    )
    async def test_refusals(
        self, gateway: Gateway, method: str, path: str, body: bytes, status: int, mentions: str
    ) -> None:
        answer = await gateway.http.request(method, path, content=body)
        assert answer.status_code == status
        assert mentions in answer.json()["message"]
        assert set(answer.json()) == {"code", "message", "details"}

    @pytest.mark.parametrize(
        ("code", "status"), [(5, 404), (7, 403), (16, 401), (8, 429), (3, 400), (6, 409), (12, 501)]
    )
    async def test_upstream_errors(self, gateway: Gateway, code: int, status: int) -> None:
        answer = await gateway.http.get(f"/v1/fail/{code}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["message"].startswith("no: ")
        assert answer.headers.get("www-authenticate") == ('Bearer realm="api"' if status == 401 else None)
        assert ("retry-after" in answer.headers) == (status == 429)

    async def test_an_answer_that_is_too_large_is_nobodys_haste(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/say/make%20it%20large", params={"count": 17 << 20})
        assert (answer.status_code, answer.json()["code"]) == (500, 8)
        assert "message larger than max" in answer.json()["message"]
        assert "retry-after" not in answer.headers

    async def test_error_details(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/fail/14")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "7"
        assert answer.json() == {
            "code": 14,
            "message": "later",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "6.000000001s"},
                {"@type": "type.googleapis.com/not.Known", "value": "AQ=="},
            ],
        }

    async def test_an_upstream_that_is_down(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/lost")
        assert answer.status_code == 503
        assert "echo.v1.LostService" in answer.json()["message"]
        assert "not answering" in answer.json()["message"]

    async def test_server_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/2")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines == [{"result": {"text": "", "count": str(number)}} for number in range(2)]

    async def test_an_error_ends_a_stream_as_its_last_line(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/1?text=fail")
        last = json.loads(answer.text.splitlines()[-1])
        assert answer.status_code == 200
        assert last == {"error": {"code": 15, "message": "lost count", "details": []}}

    async def test_a_stream_that_fails_at_once_has_the_errors_status(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/-1")
        assert (answer.status_code, answer.json()["code"]) == (400, 11)

    async def test_an_empty_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/count/0")
        assert (answer.status_code, answer.text) == (200, "")

    async def test_messages_are_flushed_one_by_one(self, gateway: Gateway) -> None:
        async with gateway.http.stream("GET", "/v1/hang:stream") as answer:
            async with asyncio.timeout(5):
                line = await anext(answer.aiter_lines())
        assert json.loads(line) == {"result": {"text": "first", "count": "0"}}

    async def test_client_stream_of_json(self, gateway: Gateway) -> None:
        body = b'{"text":"a"}\n{"text":"b"}{\n "text": "c}\\""\n}'
        answer = await gateway.http.post("/v1/join", content=body)
        assert answer.json() == {"text": 'a b c}"', "count": "3"}

    async def test_a_broken_message_in_a_client_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/v1/join", content=b'{"text":"a"}\n{"txt":"b"}')
        assert (answer.status_code, "txt" in answer.text) == (400, True)

    async def test_bidirectional_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/v1/chat", content=b'{"text":"a"}\n{"text":"b"}\n')
        assert [json.loads(line)["result"]["text"] for line in answer.text.splitlines()] == ["A", "B"]

    async def test_raw_stream(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/download")
        assert answer.headers["content-type"] == "text/csv"
        assert answer.content == b"a,b\n1,2\n"

    async def test_a_raw_stream_that_fails_late_has_the_status_of_its_error(self, gateway: Gateway) -> None:
        answer = await gateway.http.get("/v1/download", params={"text": "fail late"})
        assert (answer.status_code, answer.json()["message"]) == (404, "nothing to download")

    async def test_deadline(self, gateway: Gateway, upstream: Echo) -> None:
        answer = await gateway.http.get("/v1/hang", headers={"Grpc-Timeout": "200m"})
        assert (answer.status_code, answer.json()["code"]) == (504, 4)
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    @pytest.mark.parametrize("path", ["/v1/hang", "/v1/hang:stream"])
    async def test_a_client_that_leaves_cancels_the_call(self, gateway: Gateway, upstream: Echo, path: str) -> None:
        async def request() -> None:
            async with gateway.http.stream("GET", path) as answer:
                await answer.aread()

        task = asyncio.create_task(request())
        await asyncio.wait_for(upstream.hanging.wait(), 5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    async def test_answers_do_not_wait_for_acknowledgements(self, gateway: Gateway) -> None:
        """With Nagle's algorithm on, every answer on a kept connection takes 40 ms."""
        taken = []
        for _ in range(11):
            started = time.perf_counter()
            await gateway.http.get("/v1/say/x")
            taken.append(time.perf_counter() - started)
        assert statistics.median(taken) < 0.035

    async def test_methods_without_a_binding_have_no_path(self, gateway: Gateway) -> None:
        assert (await gateway.http.post(f"/{SERVICE}/Unbound")).status_code == 404


class TestUpload:
    async def test_pieces(self, gateway: Gateway, upstream: Echo) -> None:
        size = 20 << 20
        answer = await gateway.http.post(
            "/v1/upload/big", content=b"x" * size, headers={"content-type": "application/x-tar"}
        )
        assert answer.json() == {"text": "big", "count": str(size)}
        assert max(upstream.taken) <= 1 << 20
        assert upstream.content_types[0] == "application/x-tar"
        assert set(upstream.content_types[1:]) == {""}

    async def test_an_empty_upload_is_one_message(self, gateway: Gateway, upstream: Echo) -> None:
        answer = await gateway.http.post("/v1/upload/none", content=b"")
        assert answer.json() == {"text": "none", "count": "0"}
        assert upstream.taken == [0]

    async def test_back_pressure(self, gateway: Gateway, upstream: Echo) -> None:
        """While the upstream takes nothing, the client cannot send more than what buffers on the way hold."""
        sent = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(256):
                yield b"x" * (256 << 10)
                sent += 256 << 10

        task = asyncio.create_task(gateway.http.post("/v1/upload/slow", content=pieces()))
        async with asyncio.timeout(10):
            before = -1
            while sent != before or not upstream.taken:
                before = sent
                await asyncio.sleep(0.5)
        assert sent < 24 << 20
        assert _resident_bytes(gateway.process.pid) < 200 << 20
        upstream.taking.set()
        assert (await task).json()["count"] == str(64 << 20)

    async def test_an_early_refusal_is_heard(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/v1/upload/refused", content=b"x" * (3 << 20))
        assert (answer.status_code, answer.json()["message"]) == (403, "not yours")

    async def test_a_cut_off_upload_is_cancelled_and_not_ended(self, gateway: Gateway, upstream: Echo) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.rest_port)
        writer.write(b"POST /v1/upload/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        await writer.drain()
        await until(lambda: upstream.taken)
        writer.close()
        await asyncio.wait_for(upstream.cancelled.wait(), 5)
        assert reader is not None


class TestProcess:
    async def test_pages(self, gateway: Gateway) -> None:
        text = (await gateway.http.get("/")).text
        page = await gateway.http.get("/", headers={"accept": "text/html"})
        assert "/v1/say/{text}" in text
        assert "<html" not in text
        assert page.headers["content-type"].startswith("text/html")
        assert "EchoService" in page.text
        assert (await gateway.http.get("/healthz")).json() == {"status": "ok"}
        ready = await gateway.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["services"] == {SERVICE: "serving", "echo.v1.LostService": "not serving"}

    async def test_sigterm_ends_streams_and_the_process(self, arguments: tuple[str, ...], tmp_path: Path) -> None:
        async with running(*arguments, log=tmp_path / "log") as gateway:
            async with gateway.http.stream("GET", "/v1/hang:stream") as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                gateway.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(5):
                    assert json.loads(await anext(lines))["error"]["code"] == 14
            assert await asyncio.wait_for(gateway.process.wait(), 6) == 0

    async def test_sigterm_lets_calls_end_for_a_while(
        self, arguments: tuple[str, ...], upstream: Echo, tmp_path: Path
    ) -> None:
        async with running(*arguments, log=tmp_path / "log") as gateway:
            call = asyncio.create_task(gateway.http.get("/v1/hang"))
            await until(upstream.hanging.is_set)
            gateway.process.send_signal(signal.SIGTERM)
            answer = await asyncio.wait_for(call, 6)
            assert (answer.status_code, answer.json()["code"]) == (503, 14)
            assert await asyncio.wait_for(gateway.process.wait(), 6) == 0
        assert "Traceback" not in text_of(tmp_path / "log")

    async def test_a_port_in_use_is_one_line(self, gateway: Gateway, descriptor_set: Path) -> None:
        for option, port in (("--rest-port", gateway.rest_port), ("--grpc-port", gateway.grpc_port)):
            other = "--grpc-port" if option == "--rest-port" else "--rest-port"
            code, errors = await _failing_start(descriptor_set, option, str(port), other, "0")
            assert code == 1
            assert errors.count("\n") == 1
            assert f"127.0.0.1:{port}" in errors

    async def test_a_descriptor_set_that_is_not_there(self, tmp_path: Path) -> None:
        code, errors = await _failing_start(tmp_path / "none.binpb")
        assert (code, "none.binpb" in errors, errors.count("\n")) == (1, True, 1)


async def _failing_start(descriptor_set: Path, *arguments: str) -> tuple[int, str]:
    command = ("--descriptor-set", str(descriptor_set), "--route", f"{SERVICE}=127.0.0.1:9", *arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uhm_gateway", *command, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, errors.decode()


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
