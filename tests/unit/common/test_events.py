"""What of events needs no server; the rest is in tests/integration/test_events.py."""

from __future__ import annotations

import asyncio

import nats

from uhm_common.events import EventBus


async def test_what_loses_a_cancellation_is_cancelled_again(monkeypatch):
    """As nats-py does now and then while it connects."""
    cancellations = []

    async def connect_and_not_listen(*_args, **_options):
        while len(cancellations) < 3:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancellations.append(1)
        raise asyncio.CancelledError

    monkeypatch.setattr(nats, "connect", connect_and_not_listen)
    running = asyncio.create_task(EventBus("nats://127.0.0.1:9", name="test").run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    running.cancel()
    done, _ = await asyncio.wait([running], timeout=60)

    assert done == {running}
    assert running.cancelled()
    assert len(cancellations) == 3
