"""Who may call now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from uhm_common.callers.identity import Identity
from uhm_common.errors import Unauthenticated, Unavailable
from uhm_gateway.limits.admission import (
    ASKING_SECONDS,
    UNKNOWN_SECONDS,
    Admission,
    Capacity,
    TooManyRequests,
    network_of,
)
from uhm_gateway.limits.rate import Rate
from uhm_gateway.limits.slots import Overloaded

if TYPE_CHECKING:
    from collections.abc import Mapping

FAST = Rate(per_second=0, burst=0)


class Verifier:
    """Knows the tokens `token of NAME`."""

    def __init__(self) -> None:
        self.asked = 0

    async def identity(self, metadata: Mapping[str, str]) -> Identity:
        self.asked += 1
        scheme, _, name = metadata["authorization"].partition(" of ")
        if scheme == "down":
            raise Unavailable("Nobody can say.")
        if scheme == "slow":
            await asyncio.sleep(ASKING_SECONDS * 2)
            scheme = "Bearer token"
        if scheme != "Bearer token":
            raise Unauthenticated("Not a token.")
        return Identity(username=name, session_id="", token="")

    def knows(self, metadata: Mapping[str, str]) -> bool:
        return metadata["authorization"].endswith("known")


def admission(
    *,
    address: Rate = FAST,
    user: Rate = FAST,
    unary: int = 9,
    streams: int = 9,
    share: float = 1,
    verified: bool = True,
) -> Admission:
    capacity = Capacity(
        address=address, user=user, unary=unary, streams=streams, service_share=share, caller_share=share
    )
    return Admission(capacity, verifier=Verifier() if verified else None)


@pytest.mark.parametrize(
    ("authorization", "verified", "expected"),
    [
        ("Bearer token of ada", True, "user ada"),
        ("Bearer forged of ada", True, "address 192.0.2.1"),
        ("down of ada", True, "address 192.0.2.1"),
        ("slow of ada", True, "address 192.0.2.1"),
        ("slow of one who is known", True, "user one who is known"),
        ("", True, "address 192.0.2.1"),
        ("Bearer token of ada", False, "address 192.0.2.1"),
    ],
)
async def test_only_a_verified_token_names_a_user(authorization: str, verified: bool, expected: str) -> None:
    admitting = admission(verified=verified)
    assert await admitting.caller(address="192.0.2.1", authorization=authorization) == expected


async def test_a_user_has_one_budget_from_everywhere_that_no_one_else_spends() -> None:
    admitting = admission(user=Rate(per_second=0.01, burst=2))
    await admitting.caller(address="192.0.2.1", authorization="Bearer token of ada")
    await admitting.caller(address="192.0.2.2", authorization="Bearer token of ada")
    await admitting.caller(address="192.0.2.2", authorization="Bearer forged of ada")
    with pytest.raises(TooManyRequests, match="User ada") as refusal:
        await admitting.caller(address="192.0.2.3", authorization="Bearer token of ada")
    assert refusal.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.value.retry_after == pytest.approx(100, abs=1)
    assert await admitting.caller(address="192.0.2.3", authorization="Bearer token of bob") == "user bob"


async def test_an_address_that_asks_too_often_has_no_more_tokens_checked() -> None:
    verifier = Verifier()
    capacity = Capacity(address=Rate(per_second=0.01, burst=3), user=FAST, unary=1, streams=1)
    admitting = Admission(capacity, verifier=verifier)
    for number in range(3):
        await admitting.caller(address="192.0.2.1", authorization=f"Bearer forged of {number}")
    with pytest.raises(TooManyRequests, match=r"Address 192\.0\.2\.1"):
        await admitting.caller(address="192.0.2.1", authorization="Bearer forged of ada")
    assert verifier.asked == 3


async def test_who_nobody_vouches_for_is_not_asked_about_each_time() -> None:
    verifier, hand = Verifier(), [5.0]
    capacity = Capacity(address=FAST, user=FAST, unary=1, streams=1)
    admitting = Admission(capacity, verifier=verifier, clock=lambda: hand[0])
    for _ in range(3):
        assert (await admitting.caller(address="192.0.2.1", authorization="down of ada")).startswith("address")
    assert verifier.asked == 1
    hand[0] += UNKNOWN_SECONDS
    await admitting.caller(address="192.0.2.1", authorization="down of ada")
    assert verifier.asked == 2


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_client(address: str, expected: str) -> None:
    assert network_of(address) == expected


def test_calls_and_streams_are_counted_apart() -> None:
    admitting = admission(unary=1, streams=1)
    with admitting.slot("a", service="s", streams=True), admitting.slot("a", service="s", streams=False):
        with pytest.raises(Overloaded, match="1 streams"), admitting.slot("a", service="s", streams=True):
            pass
        with pytest.raises(Overloaded, match="1 calls"), admitting.slot("a", service="s", streams=False):
            pass


def test_a_slow_service_leaves_room_for_others() -> None:
    admitting = admission(unary=4, share=0.5)
    with admitting.slot("a", service="slow", streams=False), admitting.slot("b", service="slow", streams=False):
        with pytest.raises(Overloaded, match="slow"), admitting.slot("c", service="slow", streams=False):
            pass
        with admitting.slot("c", service="quick", streams=False):
            pass
