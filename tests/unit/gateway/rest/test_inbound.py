"""Who watches the clients of calls, and from when on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from uhm_gateway.http.exchange import ClientDisconnectedError
from uhm_gateway.rest import inbound
from uhm_gateway.rest.inbound import Inbound, Unwatched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Client:
    """Says when it is asked whether it is still there, and goes when told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()

    async def disconnected(self) -> None:
        self.asked.set()
        await self.gone.wait()


class Call:
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "UNWATCHED_SECONDS", 0.01)


async def test_a_client_that_leaves_ends_a_call_that_takes_long() -> None:
    client, call = Client(), Call()
    async with Inbound(client, call, unwatched=Unwatched()) as watched:
        assert not client.asked.is_set()
        client.gone.set()
        await asyncio.wait_for(call.cancelled.wait(), 5)
    assert isinstance(watched.error, ClientDisconnectedError)


async def test_a_call_that_is_over_has_no_client_to_watch() -> None:
    unwatched, short, long = Unwatched(), Client(), Client()
    async with Inbound(long, Call(), unwatched=unwatched):
        async with Inbound(short, Call(), unwatched=unwatched):
            pass
        await asyncio.wait_for(long.asked.wait(), 5)
    assert not short.asked.is_set()


async def test_calls_that_come_later_are_watched_as_well() -> None:
    unwatched = Unwatched()
    for _ in range(3):
        client = Client()
        async with Inbound(client, Call(), unwatched=unwatched):
            await asyncio.wait_for(client.asked.wait(), 5)
        await asyncio.sleep(0.03)  # no timer is left


class WrittenCall(Call):
    """A call whose messages are written one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []

    async def write(self, message: Any) -> None:
        self.written.append(message)

    async def done_writing(self) -> None:
        self.written.append("done")

    def add_done_callback(self, _callback: object) -> None:
        """Is never called back."""


async def test_the_messages_of_a_stream_are_written_at_once() -> None:
    async def messages() -> AsyncIterator[Any]:
        yield "a"
        yield "b"

    client, call = Client(), WrittenCall()
    async with Inbound(client, call, messages(), unwatched=Unwatched()):
        await asyncio.wait_for(client.asked.wait(), 5)
    assert call.written == ["a", "b", "done"]


async def test_an_error_that_nobody_foresaw_ends_the_call() -> None:
    async def messages() -> AsyncIterator[Any]:
        yield "a"
        raise LookupError

    call = WrittenCall()
    with pytest.raises(LookupError):
        async with Inbound(Client(), call, messages(), unwatched=Unwatched()):
            await asyncio.wait_for(call.cancelled.wait(), 5)
    assert call.cancelled.is_set()
    assert call.written == ["a"]
