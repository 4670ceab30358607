"""What a pull consumer does where nats-py loses a cancellation, with nats-py played by a stand-in."""

from __future__ import annotations

import asyncio

import pytest

from uhm_common.subscription import Later, PullConsumer, Subscription


class Message:
    handed_back = False
    delay = None
    subject, data = "uhm.users.deleted", b"{}"

    async def nak(self, delay=None):
        self.handed_back = True
        self.delay = delay


class Queue:
    """A pull subscription to which something comes at the moment when its reader is cancelled."""

    def __init__(self, outcome):
        self.outcome = outcome

    async def fetch(self, batch, timeout):  # noqa: ARG002, ASYNC109 - the signature is nats-py's
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if isinstance(self.outcome, Exception):
                raise self.outcome from None
            return [self.outcome]


class Events:
    client = None


@pytest.mark.parametrize("outcome", [Message(), TimeoutError()], ids=["message", "timeout"])
async def test_a_cancellation_that_came_with_something_else_counts(outcome):
    reading = asyncio.create_task(PullConsumer(Events(), Queue(outcome)).next())
    await asyncio.sleep(0.01)

    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
    assert getattr(outcome, "handed_back", True)


async def test_an_event_comes_again_when_its_handler_says():
    message, deletions = Message(), Subscription(events=None, stream="s", subjects=["s"], durable="d")

    async def handle(_subject, _payload):
        raise Later(3.5)

    await deletions._deliver(message, handle)
    assert message.delay == 3.5
