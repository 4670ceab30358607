"""What is written in one turn goes in one piece."""

from __future__ import annotations

import asyncio
from typing import Any

from uhm_gateway.server.corked import MOST_BYTES, Corked


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[Any] = []

    def write(self, data: Any) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def get_write_buffer_size(self) -> int:
        return 3

    def is_closing(self) -> bool:
        return "closed" in self.done


async def test_a_turn_is_one_piece() -> None:
    transport = Transport()
    corked = Corked(transport)
    corked.write(b"head")
    corked.write(b"body")
    assert transport.done == []
    await asyncio.sleep(0)
    assert transport.done == [b"headbody"]
    corked.write(b"next")
    await asyncio.sleep(0)
    assert transport.done == [b"headbody", b"next"]


async def test_closing_sends_what_is_left_first() -> None:
    transport = Transport()
    corked = Corked(transport)
    corked.write(b"last")
    corked.close()
    assert transport.done == [b"last", "closed"]
    assert corked.is_closing()
    await asyncio.sleep(0)
    assert transport.done == [b"last", "closed"]


async def test_much_is_sent_at_once() -> None:
    transport = Transport()
    Corked(transport).write(b"x" * (MOST_BYTES + 1))
    assert [len(data) for data in transport.done] == [MOST_BYTES + 1]


async def test_it_knows_how_much_has_gone() -> None:
    transport = Transport()
    corked = Corked(transport)
    corked.write(b"12345")
    corked.write(b"678")
    await asyncio.sleep(0)
    assert corked.sent == 8 - transport.get_write_buffer_size()
