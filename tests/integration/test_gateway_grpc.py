"""The gateway's gRPC port: forwarding, reflection and health."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.integration.echo_system import SERVICE, Echo, Gateway, buf_curl, stub, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


class TestGrpc:
    async def test_unary(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Unbound", "unary_unary")(
            upstream.words(text="x"), metadata=(("colour", "blue"), ("raw-bin", b"\xff")), timeout=5
        )
        assert (await call).text == "x"
        assert dict(await call.initial_metadata())["raw-bin"] == b"\x00\xff"
        assert dict(await call.trailing_metadata())["farewell"] == "bye"
        assert (upstream.metadata["colour"], upstream.metadata["raw-bin"]) == ("blue", b"\xff")
        assert upstream.time_left is not None
        assert 3 < upstream.time_left < 5.5  # grpc rounds up what it sends

    async def test_where_a_call_comes_from(self, gateway: Gateway, upstream: Echo) -> None:
        """Only the gateway says it; the call's id goes back to the client."""
        forged = (("x-uhm-client-address", "198.51.100.1"), ("x-uhm-anything", "x"), ("x-forwarded-for", "192.0.2.1"))
        call = stub(gateway, upstream, "Say", "unary_unary")(upstream.words(), metadata=forged)
        await call
        assert upstream.metadata["x-uhm-client-address"] == "127.0.0.1"
        assert upstream.metadata["x-uhm-user-agent"].startswith("grpc-python-asyncio/")
        assert "x-uhm-anything" not in upstream.metadata
        assert dict(await call.trailing_metadata())["x-request-id"] == upstream.metadata["x-request-id"]

    async def test_a_clients_own_request_id(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Count", "unary_stream")(
            upstream.words(count=-1), metadata=(("x-request-id", "mine"),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert dict(caught.value.trailing_metadata())["x-request-id"] == "mine"

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    async def test_messages_may_be_compressed(
        self, gateway: Gateway, upstream: Echo, compression: grpc.Compression
    ) -> None:
        text = "long " * 10_000
        say = stub(gateway, upstream, "Say", "unary_unary")
        assert (await say(upstream.words(text=text), compression=compression)).text == text
        join = stub(gateway, upstream, "Join", "stream_unary")
        assert (await join(iter([upstream.words(text=text)] * 2), compression=compression)).count == 2

    @pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
    async def test_messages_are_bounded(self, gateway: Gateway, upstream: Echo, compression: grpc.Compression) -> None:
        """In what they unpack to, too."""
        large = upstream.words(text="x" * (17 << 20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(gateway, upstream, "Say", "unary_unary")(large, compression=compression)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_answers_are_bounded(self, gateway: Gateway, upstream: Echo) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(gateway, upstream, "Unbound", "unary_unary")(
                upstream.words(text="make it large", count=17 << 20)
            )
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_streams(self, gateway: Gateway, upstream: Echo) -> None:
        async def words() -> AsyncIterator[Any]:
            for text in ("a", "b"):
                yield upstream.words(text=text)

        counted = [m.count async for m in stub(gateway, upstream, "Count", "unary_stream")(upstream.words(count=3))]
        assert counted == [0, 1, 2]
        assert (await stub(gateway, upstream, "Join", "stream_unary")(words())).text == "a b"
        assert [m.text async for m in stub(gateway, upstream, "Chat", "stream_stream")(words())] == ["A", "B"]

    async def test_a_conversation(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Chat", "stream_stream")()
        for text in ("a", "b", "c"):
            await call.write(upstream.words(text=text))
            assert (await call.read()).text == text.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def test_errors_with_details(self, gateway: Gateway, upstream: Echo) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(gateway, upstream, "Fail", "unary_unary")(upstream.words(count=14))
        trailers = dict(caught.value.trailing_metadata())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        assert (caught.value.details(), len(status.details)) == ("later", 2)

    async def test_an_error_after_messages(self, gateway: Gateway, upstream: Echo) -> None:
        call = stub(gateway, upstream, "Count", "unary_stream")(upstream.words(count=2, text="fail"))
        assert [(await call.read()).count for _ in range(2)] == [0, 1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS

    async def test_a_cancelled_upload_is_not_passed_off_as_ended(self, gateway: Gateway, upstream: Echo) -> None:
        piece = upstream._methods["Upload"].input_type
        for _ in range(5):
            upstream.cancelled.clear()
            upstream.taken.clear()
            call = stub(gateway, upstream, "Upload", "stream_unary")()
            await call.write(piece(name="cut"))
            await until(lambda: upstream.taken)
            call.cancel()
            await asyncio.wait_for(upstream.cancelled.wait(), 5)

    async def test_a_refusal_in_the_middle_of_an_upload(self, gateway: Gateway, upstream: Echo) -> None:
        """With grpcio's blocking client: its other one forgets the status where a write fails at the same moment."""
        piece = upstream._methods["Upload"].input_type(name="refused", body=upstream.body(data=b"x" * 65536))
        with grpc.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            upload = stub(gateway, upstream, "Upload", "stream_unary", channel=channel)
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(upload, iter([piece] * 200))
        assert caught.value.details() == "not yours"

    async def test_deadline_and_cancellation(self, gateway: Gateway, upstream: Echo) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(gateway, upstream, "Hang", "unary_unary")(upstream.words(), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(upstream.cancelled.wait(), 5)
        upstream.cancelled.clear()
        call = stub(gateway, upstream, "HangStream", "unary_stream")(upstream.words())
        assert (await call.read()).text == "first"
        call.cancel()
        await asyncio.wait_for(upstream.cancelled.wait(), 5)

    @pytest.mark.parametrize(
        ("method", "code"),
        [
            ("/echo.v1.LostService/Say", grpc.StatusCode.UNAVAILABLE),
            ("/echo.v1.EchoService/Nothing", grpc.StatusCode.UNIMPLEMENTED),
            ("/other.v1.Service/Say", grpc.StatusCode.UNIMPLEMENTED),
        ],
    )
    async def test_what_is_not_there(self, gateway: Gateway, method: str, code: grpc.StatusCode) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.channel.unary_unary(method)(b"")
        assert caught.value.code() is code

    async def test_health(self, gateway: Gateway) -> None:
        health = health_pb2_grpc.HealthStub(gateway.channel)
        expected = {SERVICE: "SERVING", "echo.v1.LostService": "NOT_SERVING", "": "NOT_SERVING"}
        for service, state in expected.items():
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == state
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()

    async def test_health_of_all(self, gateway: Gateway) -> None:
        answer = await health_pb2_grpc.HealthStub(gateway.channel).List(health_pb2.HealthListRequest())
        name_of = health_pb2.HealthCheckResponse.ServingStatus.Name
        states = {name: name_of(state.status) for name, state in answer.statuses.items()}
        assert states == {"": "NOT_SERVING", SERVICE: "SERVING", "echo.v1.LostService": "NOT_SERVING"}

    @pytest.mark.parametrize("version", ["v1", "v1alpha"])
    async def test_reflection(self, gateway: Gateway, version: str) -> None:
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        ask: Any = gateway.channel.stream_stream(
            path,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=path.split("/")[1]),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="nowhere.Nothing"),
        ]
        listed, found, itself, missing = [answer async for answer in ask(iter(questions))]
        names = {service.name for service in listed.list_services_response.service}
        assert {SERVICE, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= names
        file = descriptor_pb2.FileDescriptorProto.FromString(found.file_descriptor_response.file_descriptor_proto[0])
        assert "EchoService" in [service.name for service in file.service]
        own = descriptor_pb2.FileDescriptorProto.FromString(itself.file_descriptor_response.file_descriptor_proto[0])
        assert own.package == f"grpc.reflection.{version}"
        assert missing.error_response.error_code == 5

    @pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
    async def test_buf_curl_finds_its_way_by_reflection(self, gateway: Gateway, version: str) -> None:
        address = f"http://127.0.0.1:{gateway.grpc_port}"
        listed = await buf_curl(address, "--list-services", "--reflect-protocol", version)
        assert {SERVICE, "echo.v1.LostService", "grpc.health.v1.Health"} <= set(listed.split())
        said = ("--reflect-protocol", version, "-d", '{"text": "hello"}')
        answer = await buf_curl(f"{address}/{SERVICE}/Say", *said)
        assert json.loads(answer) == {"text": "hello"}
