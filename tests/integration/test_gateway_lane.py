"""The lane against grpc's own server, and against peers that break the protocol."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from uhm_gateway.upstream import frames
from uhm_gateway.upstream.frames import Splitter, frame, literal
from uhm_gateway.upstream.lane import RECONNECT_SECONDS, Lane
from uhm_gateway.upstream.laneconnection import LARGEST_BODY
from uhm_gateway.upstream.outcome import is_unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.integration

PATH = "/t.T/Call"
LIMIT = 1 << 20


class Service:
    """A service with one method, whose request says what it is to do."""

    def __init__(self) -> None:
        self.metadata: list[tuple[str, Any]] = []
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()

    async def call(self, request: bytes, context: Any) -> bytes:
        self.metadata = list(context.invocation_metadata())
        name, _, size = request.partition(b" ")
        if name == b"wait":
            self.waiting.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if name == b"fail":
            trailers = (("grpc-status-details-bin", b"\x00\xff"), ("why", "so"))
            await context.abort(grpc.StatusCode.NOT_FOUND, "nö: 100%", trailers)
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff\xfe")))
        context.set_trailing_metadata((("last", "x" * 200),))
        return b"x" * int(size) if name == b"large" else request

    async def start(
        self, port: int = 0, *, compression: grpc.Compression = grpc.Compression.NoCompression
    ) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], compression=compression)
        handlers = {"Call": grpc.unary_unary_rpc_method_handler(self.call)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server, bound


class Elsewhere:
    """What the lane leaves to the channel."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def __call__(self, message: bytes, **_: object) -> str:
        self.calls.append(message)
        return "elsewhere"


@pytest_asyncio.fixture
async def service() -> AsyncIterator[tuple[Service, int]]:
    service = Service()
    server, port = await service.start()
    yield service, port
    await server.stop(None)


@contextlib.asynccontextmanager
async def lane_to(port: int) -> AsyncIterator[tuple[Callable[..., Any], Elsewhere]]:
    """A multi-callable of a lane that is up, and what it left to the channel."""
    lane, elsewhere = Lane(f"127.0.0.1:{port}", message_limit=LIMIT), Elsewhere()
    try:
        await _up(lane)
        yield lane.unary_unary(PATH, otherwise=elsewhere), elsewhere
    finally:
        await lane.close()


async def _up(lane: Lane) -> None:
    async with asyncio.timeout(10):
        while not lane.is_up:
            lane.connect()
            await asyncio.sleep(0.02)


async def test_an_answer_with_metadata_both_ways(service: tuple[Service, int]) -> None:
    async with lane_to(service[1]) as (start, elsewhere):
        sent = (("x-request-id", "r"), ("authorization", "Bearer " + "t" * 600), ("raw-bin", b"\x00\xff"))
        call = start(b"hello", metadata=sent, timeout=5)
        assert await call == b"hello"
        assert set(sent) <= set(service[0].metadata)
        assert await call.initial_metadata() == (("first", "1"), ("first-bin", b"\x00\xff\xfe"))
        assert await call.trailing_metadata() == (("last", "x" * 200),)
        assert (await call.code(), await call.details(), call.done()) == (grpc.StatusCode.OK, "", True)
        assert elsewhere.calls == []


async def test_an_error_with_details(service: tuple[Service, int]) -> None:
    async with lane_to(service[1]) as (start, _):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await start(b"fail")
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.NOT_FOUND, "nö: 100%")
        assert dict(error.value.trailing_metadata()) == {"grpc-status-details-bin": b"\x00\xff", "why": "so"}


async def test_many_at_once_and_one_after_another(service: tuple[Service, int]) -> None:
    async with lane_to(service[1]) as (start, elsewhere):
        for _ in range(5):
            wanted = [b"%d" % number for number in range(200)]
            assert await asyncio.gather(*(_answer(start(each)) for each in wanted)) == wanted
        assert elsewhere.calls == []


async def test_large_answers_and_the_limit(service: tuple[Service, int]) -> None:
    async with lane_to(service[1]) as (start, _):
        for _ in range(20):
            assert len(await start(b"large %d" % LIMIT)) == LIMIT
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await start(b"large %d" % (LIMIT + 1))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await start(b"after") == b"after"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_service_that_compresses_its_answers(compression: grpc.Compression) -> None:
    server, port = await Service().start(compression=compression)
    try:
        async with lane_to(port) as (start, elsewhere):
            assert len(await start(b"large %d" % LIMIT)) == LIMIT
            with pytest.raises(grpc.aio.AioRpcError, match="CLIENT: Received message larger than max"):
                await start(b"large %d" % (LIMIT + 1))
            assert elsewhere.calls == []
    finally:
        await server.stop(None)


async def test_what_does_not_fit_goes_elsewhere(service: tuple[Service, int]) -> None:
    async with lane_to(service[1]) as (start, elsewhere):
        assert len(await start(b"x" * LARGEST_BODY)) == LARGEST_BODY
        assert start(b"x" * (LARGEST_BODY + 1)) == "elsewhere"
        assert start(b"y", metadata=(("big", "x" * 9000),)) == "elsewhere"
        assert len(elsewhere.calls) == 2


async def test_the_windows_hold_out(service: tuple[Service, int]) -> None:
    """More goes out than the first windows hold, which only the service's updates allow."""
    async with lane_to(service[1]) as (start, elsewhere):
        for _ in range(100):
            assert len(await start(b"z" * 10_000)) == 10_000
        assert elsewhere.calls == []


@pytest.mark.parametrize("far", [10.0, 0.1])
async def test_deadline(service: tuple[Service, int], monkeypatch: pytest.MonkeyPatch, far: float) -> None:
    monkeypatch.setattr("uhm_gateway.upstream.laneconnection.FAR_SECONDS", far)
    monkeypatch.setattr("uhm_gateway.upstream.laneconnection.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("uhm_gateway.upstream.lane._timeout", lambda _: b"1M")  # or the service would end it, too
    async with lane_to(service[1]) as (start, _):
        call = start(b"wait", timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert call.timer.when() == call.deadline
        await asyncio.wait_for(service[0].cancelled.wait(), 5)


async def test_a_service_that_resets_the_call_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those in Go and Java do, while the lane looks seldom."""
    monkeypatch.setattr("uhm_gateway.upstream.laneconnection.FAR_SECONDS", 0)

    async def respond(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4, "big")))

    async with _peer(respond) as (start, _), asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await start(b"x", timeout=0.2)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("how", ["call", "task"])
async def test_cancelling_reaches_the_service(service: tuple[Service, int], how: str) -> None:
    async with lane_to(service[1]) as (start, _):
        call = start(b"wait")
        task = asyncio.create_task(_answer(call))
        await asyncio.wait_for(service[0].waiting.wait(), 5)
        assert (call if how == "call" else task).cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(service[0].cancelled.wait(), 5)
        assert (await call.code(), call.cancel()) == (grpc.StatusCode.CANCELLED, False)
        assert await start(b"after") == b"after"


async def test_a_service_that_goes_and_comes_back() -> None:
    service = Service()
    server, port = await service.start()
    async with lane_to(port) as (start, _):
        call = start(b"wait")
        await asyncio.wait_for(service.waiting.wait(), 5)
        await server.stop(None)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert error.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        async with asyncio.timeout(5):
            while start(b"gone?") != "elsewhere":  # noqa: ASYNC110 - the other end says when
                await asyncio.sleep(0.02)
        again, _ = await service.start(port)
        async with asyncio.timeout(10):
            while (call := start(b"back")) == "elsewhere":  # noqa: ASYNC110 - the other end says when
                await asyncio.sleep(RECONNECT_SECONDS / 10)
        assert await call == b"back"
        await again.stop(None)


async def test_nobody_there() -> None:
    lane, elsewhere = Lane("127.0.0.1:9", message_limit=LIMIT), Elsewhere()
    start = lane.unary_unary(PATH, otherwise=elsewhere)
    for _ in range(3):
        assert start(b"x") == "elsewhere"
        await asyncio.sleep(0.05)
    await lane.close()


@pytest.mark.parametrize("patience", [0.2, 60])
async def test_a_peer_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    """After a while, or when the lane is closed in the meantime."""
    monkeypatch.setattr("uhm_gateway.upstream.lane.CONNECT_SECONDS", patience)
    accepted, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(10):
        lane = Lane(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", message_limit=LIMIT)
        lane.connect()
        await accepted.wait()
        if patience == 60:
            await lane.close()
        await left.wait()
        assert not lane.is_up
        await lane.close()


OK_HEADERS = frame(1, frames.END_HEADERS, 1, b"\x88" + literal(b"content-type", b"application/grpc"))
GZIP_HEADERS = frame(1, frames.END_HEADERS, 1, b"\x88" + literal(b"grpc-encoding", b"gzip"))
SNAPPY_HEADERS = frame(1, frames.END_HEADERS, 1, b"\x88" + literal(b"grpc-encoding", b"snappy"))
OK_TRAILERS = frame(1, frames.END_HEADERS | frames.END_STREAM, 1, literal(b"grpc-status", b"0"))


@pytest.mark.parametrize(
    ("answer", "code", "unanswered"),
    [
        (OK_HEADERS + OK_TRAILERS, grpc.StatusCode.INTERNAL, False),
        (OK_HEADERS + frame(0, 0, 1, b"\x01\0\0\0\0") + OK_TRAILERS, grpc.StatusCode.INTERNAL, False),
        (SNAPPY_HEADERS + frame(0, 0, 1, b"\x01\0\0\0\x01x") + OK_TRAILERS, grpc.StatusCode.INTERNAL, False),
        (GZIP_HEADERS + frame(0, 0, 1, b"\x01\0\0\0\x01x") + OK_TRAILERS, grpc.StatusCode.INTERNAL, False),
        (GZIP_HEADERS + frame(0, 0, 1, b"\x01\0\0\0\x01\x1f") + OK_TRAILERS, grpc.StatusCode.INTERNAL, False),
        (OK_HEADERS + frame(0, 0, 1, b"\0\0\0\0\x05abc") + OK_TRAILERS, grpc.StatusCode.INTERNAL, False),
        (OK_HEADERS + frame(0, frames.END_STREAM, 1, b"\0\0\0\0\0"), grpc.StatusCode.UNKNOWN, False),
        (frame(1, 5, 1, literal(b":status", b"503")), grpc.StatusCode.UNAVAILABLE, False),
        (frame(1, 5, 1, literal(b":status", b"404")), grpc.StatusCode.UNIMPLEMENTED, False),
        (frame(1, 5, 1, b"\x88" + literal(b"grpc-status", b"99")), grpc.StatusCode.UNKNOWN, False),
        (frame(3, 0, 1, (8).to_bytes(4, "big")), grpc.StatusCode.CANCELLED, False),
        (frame(3, 0, 1, (2).to_bytes(4, "big")), grpc.StatusCode.INTERNAL, False),
        (frame(1, 5, 1, b"\xbe"), grpc.StatusCode.UNAVAILABLE, True),
        (frame(9, 4, 1, b""), grpc.StatusCode.UNAVAILABLE, True),
        (frame(1, 0, 1, b"\x88") + frame(6, 0, 0, bytes(8)), grpc.StatusCode.UNAVAILABLE, True),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", grpc.StatusCode.UNAVAILABLE, True),
    ],
    ids=[
        "no message",
        "compressed in no way",
        "compressed in an unknown way",
        "not gzip",
        "half of gzip",
        "half a message",
        "no trailers",
        "not gRPC: 503",
        "not gRPC: 404",
        "unknown status",
        "cancelled",
        "reset",
        "bad headers",
        "continues nothing",
        "headers cut",
        "HTTP/1.1",
    ],
)
async def test_answers_that_are_wrong_fail_the_call(answer: bytes, code: grpc.StatusCode, unanswered: bool) -> None:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with _peer(respond) as (start, _), asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await start(b"x")
    assert error.value.code() is code
    assert is_unanswered(error.value) is unanswered


REFUSALS = [frame(frames.RST_STREAM, 0, 1, (7).to_bytes(4, "big")), frame(frames.GOAWAY, 0, 0, bytes(8))]


@contextlib.asynccontextmanager
async def refused_by(refusal: bytes, port: int) -> AsyncIterator[Callable[..., Any]]:
    """A multi-callable of a lane whose peer has looked at no call, before a channel to who does."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(refusal)

    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        _peer(respond, otherwise=channel.unary_unary(PATH)) as (start, _),
        asyncio.timeout(10),
    ):
        yield start


@pytest.mark.parametrize("refusal", REFUSALS, ids=["refused", "going away"])
async def test_what_the_service_has_not_looked_at_goes_the_other_way(
    service: tuple[Service, int], refusal: bytes
) -> None:
    async with refused_by(refusal, service[1]) as start:
        call = start(b"hello", metadata=(("x-request-id", "r"),), timeout=5)
        ended = asyncio.Event()
        call.add_done_callback(lambda _: ended.set())
        assert await call == b"hello"
        assert ("x-request-id", "r") in service[0].metadata
        assert await call.initial_metadata() == (("first", "1"), ("first-bin", b"\x00\xff\xfe"))
        assert await call.trailing_metadata() == (("last", "x" * 200),)
        assert (await call.code(), await call.details(), call.done()) == (grpc.StatusCode.OK, "", True)
        await ended.wait()


async def test_what_goes_the_other_way_may_fail_there(service: tuple[Service, int]) -> None:
    async with refused_by(REFUSALS[0], service[1]) as start:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await start(b"fail")
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.NOT_FOUND, "nö: 100%")
    assert dict(error.value.trailing_metadata()) == {"grpc-status-details-bin": b"\x00\xff", "why": "so"}


async def test_what_goes_the_other_way_can_be_cancelled(service: tuple[Service, int]) -> None:
    async with refused_by(REFUSALS[0], service[1]) as start:
        call = start(b"wait")
        await service[0].waiting.wait()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await service[0].cancelled.wait()


@pytest.mark.parametrize("why", ["going away", "no more streams"])
async def test_a_connection_that_takes_no_more_calls_ends_with_its_last(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no more streams":
        monkeypatch.setattr("uhm_gateway.upstream.laneconnection.LAST_STREAM", 3)
    ended = asyncio.Event()

    async def respond(writer: asyncio.StreamWriter) -> None:
        if why == "going away":
            writer.write(frame(frames.GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)))
        writer.write(OK_HEADERS + frame(0, 0, 1, b"\0\0\0\0\x02ok") + OK_TRAILERS)

    async with _peer(respond, ended=ended) as (start, _), asyncio.timeout(10):
        assert await start(b"x") == b"ok"
        await ended.wait()


async def test_closing_ends_the_connections_before_the_last_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uhm_gateway.upstream.lane.RECONNECT_SECONDS", 0)

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(frame(frames.GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)))

    async with asyncio.timeout(10):
        async with _peer(respond) as (start, _):
            first = start(b"x")
            while start(b"y") != "elsewhere":  # noqa: ASYNC110 - the other end says when
                await asyncio.sleep(0.02)
            while start(b"z") == "elsewhere":  # noqa: ASYNC110 - the other end says when
                await asyncio.sleep(0.02)
        with pytest.raises(grpc.aio.AioRpcError, match="Socket closed"):
            await first


async def test_a_service_that_does_not_read_gets_no_more_calls() -> None:
    """Nor does closing wait for it."""
    closed = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport has it
        windows = (4).to_bytes(2, "big") + (2**31 - 1).to_bytes(4, "big")
        writer.write(frame(frames.SETTINGS, 0, 0, windows))
        writer.write(frame(frames.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
        await closed.wait()
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(30):
        lane = Lane(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", message_limit=LIMIT)
        await _up(lane)
        start = lane.unary_unary(PATH, otherwise=Elsewhere())
        while start(b"x" * LARGEST_BODY) != "elsewhere":  # noqa: ASYNC110 - the other end says when
            await asyncio.sleep(0)
        await lane.close()
        closed.set()


async def test_headers_in_pieces_and_late_updates() -> None:
    block = b"\x88" + literal(b"long", b"x" * 30_000)

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(frame(1, 0, 1, block[:10_000]) + frame(9, 0, 1, block[10_000:20_000]))
        writer.write(frame(9, frames.END_HEADERS, 1, block[20_000:]) + frame(0, 0, 1, b"\0\0\0\0\x02ok") + OK_TRAILERS)
        writer.write(frame(0, 1, 1, b"late") + frame(8, 0, 0, (5).to_bytes(4, "big")) + frame(99, 0, 0, b"unknown"))

    async with _peer(respond) as (start, _), asyncio.timeout(10):
        call = start(b"x")
        assert await call == b"ok"
        assert dict(await call.initial_metadata())["long"] == "x" * 30_000


async def test_no_more_streams_than_the_service_takes() -> None:
    async def respond(_writer: asyncio.StreamWriter) -> None:
        """Never answers."""

    settings = (3).to_bytes(2, "big") + (2).to_bytes(4, "big")
    async with _peer(respond, settings=settings) as (start, elsewhere):
        calls = [start(b"a"), start(b"b")]
        assert start(b"c") == "elsewhere"
        assert elsewhere.calls == [b"c"]
        calls[0].cancel()
        assert start(b"d") != "elsewhere"


@contextlib.asynccontextmanager
async def _peer(
    respond: Callable[[asyncio.StreamWriter], Awaitable[None]],
    *,
    settings: bytes = b"",
    ended: asyncio.Event | None = None,
    otherwise: Callable[..., Any] | None = None,
) -> AsyncIterator[tuple[Callable[..., Any], Elsewhere]]:
    """A lane to a server that answers the first stream with what it likes; `ended` tells that it was left."""
    ended = ended or asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = Splitter()
        await reader.readexactly(len(frames.PREFACE))
        writer.write(frame(frames.SETTINGS, 0, 0, settings))
        while data := await reader.read(65536):
            for received in splitter.feed(data):
                if received.kind == frames.DATA:
                    await respond(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        lane, elsewhere = Lane(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", message_limit=LIMIT), Elsewhere()
        try:
            await _up(lane)
            yield lane.unary_unary(PATH, otherwise=otherwise or elsewhere), elsewhere
        finally:
            await lane.close()
            await ended.wait()


async def _answer(call: Any) -> bytes:
    answer: bytes = await call
    return answer
