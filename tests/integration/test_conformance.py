"""The vectors over HTTP: a gateway of its own in front of a server of an API that it has never seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio

from tests.conformance.api import compiled, mapping
from tests.conformance.checks import check_answer, expected, same
from tests.conformance.vectors import ANSWERED, REQUESTS, Accepted
from tests.integration.echo_system import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.echo_system import Gateway

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

# Longer ones are cut by the HTTP server or a client, before the mapping sees them.
TARGET_CHARACTERS = 8000
# The HTTP server's parser knows the registered methods only; those of custom patterns that are not are refused there.
UNREACHABLE = {"path-custom-kind"}


class Recorder:
    """Serves every method of the API: remembers what it gets, answers what it is told, or an empty message."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []
        self.answer: Any = None

    def handlers(self) -> list[Any]:
        return [
            grpc.method_handlers_generic_handler(
                service.full_name, {method.name: self._handler(method) for method in service.methods}
            )
            for service in mapping().api.services
        ]

    def _handler(self, method: Any) -> Any:
        async def unary(request: Any, _context: Any) -> Any:
            self.taken.append((method.name, request))
            return method.output_type() if self.answer is None else self.answer

        async def stream(requests: Any, _context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                self.taken.append((method.name, request))
            yield method.output_type() if self.answer is None else self.answer

        serve, kind = (stream, "stream_stream") if method.client_streaming else (unary, "unary_unary")
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            serve,
            request_deserializer=method.input_type.FromString,
            response_serializer=_serialized,
        )


def _serialized(message: Any) -> bytes:
    return message.SerializePartialToString()  # of proto2, what is empty lacks what is required


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[tuple[Recorder, int]]:
    recorder = Recorder()
    front = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    front.add_generic_rpc_handlers(tuple(recorder.handlers()))
    port = front.add_insecure_port("127.0.0.1:0")
    await front.start()
    yield recorder, port
    await front.stop(None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(server: tuple[Recorder, int], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    root = tmp_path_factory.mktemp("conformance")
    descriptor_set = root / "api.binpb"
    descriptor_set.write_bytes(compiled())
    routes = [f"--route={service.full_name}=127.0.0.1:{server[1]}" for service in mapping().api.services]
    async with running("--descriptor-set", str(descriptor_set), *routes, log=root / "log") as front:
        yield front


@pytest.fixture
def recorder(server: tuple[Recorder, int]) -> Recorder:
    server[0].taken.clear()
    server[0].answer = None
    return server[0]


async def send(gateway: Gateway, request: str, body: bytes, *, content_type: str) -> httpx.Response:
    """Sends a request whose target is not touched by the client: not one escape of it."""
    method, _, target = request.partition(" ")
    headers = {"content-type": content_type} if body or content_type != "application/json" else {}
    made = gateway.http.build_request(method, "/", content=body or None, headers=headers)
    made.extensions["target"] = target.encode()
    return await gateway.http.send(made)


def over_http(vectors: tuple[Any, ...]) -> list[Any]:
    return [each for each in vectors if len(each.request) < TARGET_CHARACTERS and each.id not in UNREACHABLE]


@pytest.mark.parametrize("vector", over_http(REQUESTS), ids=lambda vector: vector.id)
async def test_requests(gateway: Gateway, recorder: Recorder, vector: Any) -> None:
    content_type = getattr(vector, "content_type", "application/json")
    answer = await send(gateway, vector.request, vector.body, content_type=content_type)
    if isinstance(vector, Accepted):
        assert answer.status_code == 200, answer.text
        ((method, message),) = recorder.taken
        assert method == vector.method
        assert same(message, expected(vector.message, type(message)))
    else:
        assert answer.status_code == vector.status, answer.text
        assert vector.names in answer.json()["message"]
        assert not recorder.taken


@pytest.mark.parametrize("vector", over_http(ANSWERED), ids=lambda vector: vector.id)
async def test_answers(gateway: Gateway, recorder: Recorder, vector: Any) -> None:
    method, _, path = vector.request.partition(" ")
    endpoint = mapping().router.match(method, path).target
    recorder.answer = expected(vector.message, endpoint.method.output_type)
    body = b"" if endpoint.method.input_type.DESCRIPTOR.name != "Old" else b'{"needed": ""}'
    answer = await send(gateway, vector.request, body, content_type="application/json")
    assert answer.status_code == 200, answer.text
    check_answer(vector, answer.headers["content-type"], answer.content)


@pytest.mark.parametrize(
    ("request_line", "body", "messages"),
    [
        ("POST /v1/stream", b"", []),
        ("POST /v1/stream", b'{"text":"a"}\n{"text":"b"}\n', ['text: "a"', 'text: "b"']),
        ("POST /v1/stream", b'{"text":"a"}{\n"number":\n1}', ['text: "a"', "number: 1"]),
        (
            "POST /v1/stream/i?number=1",
            b'{"text":"a"}\n{}',
            ['text: "i" number: 1 nested { text: "a" }', 'text: "i" number: 1 nested {}'],
        ),
        ("GET /v1/stream/i?number=1", b"", ['text: "i" number: 1']),
        (
            "POST /v1/raw/n:stream?tags=a",
            b"\x00{",
            ['name: "n" tags: "a" body { content_type: "application/json" data: "\\000{" }'],
        ),
        ("POST /v1/raw/n:stream", b"", ['name: "n" body {}']),
    ],
)
async def test_client_streams(
    gateway: Gateway, recorder: Recorder, request_line: str, body: bytes, messages: list[str]
) -> None:
    answer = await send(gateway, request_line, body, content_type="application/json")
    assert answer.status_code == 200, answer.text
    assert len(recorder.taken) == len(messages)
    for (_, message), text in zip(recorder.taken, messages, strict=True):
        assert same(message, expected(text, type(message)))


@pytest.mark.parametrize(
    ("request_line", "text", "line"),
    [
        ("POST /v1/stream/i", 'nested { text: "x" }', b'{"result":{"text":"x",'),
        ("POST /v1/stream", 'text: "x"', b'{"result":{"text":"x",'),
        ("POST /v1/raw/n:stream", 'content_type: "text/csv" data: "a,b"', b"a,b"),
    ],
)
async def test_server_streams(gateway: Gateway, recorder: Recorder, request_line: str, text: str, line: bytes) -> None:
    method, _, path = request_line.partition(" ")
    recorder.answer = expected(text, mapping().router.match(method, path).target.method.output_type)
    answer = await send(gateway, request_line, b"", content_type="application/json")
    assert answer.status_code == 200, answer.text
    assert answer.content.startswith(line)
