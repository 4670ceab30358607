"""Where a call came from."""

from __future__ import annotations

import pytest

from uhm_common.callers.calls import Call, call_of, current_call


@pytest.mark.parametrize(
    ("metadata", "call"),
    [
        ({}, Call()),
        ({"x-request-id": "r", "authorization": "x"}, Call(request_id="r")),
        (
            {"x-request-id": "r", "x-uhm-client-address": "192.0.2.7", "x-uhm-user-agent": "curl/8"},
            Call(request_id="r", address="192.0.2.7", user_agent="curl/8"),
        ),
        ({"x-uhm-user-agent": "x" * 10_000}, Call(user_agent="x" * 200)),
        ({"user-agent": "grpc-python", "x-forwarded-for": "192.0.2.8"}, Call()),
    ],
)
def test_what_metadata_says(metadata, call):
    assert call_of(metadata) == call


async def test_outside_of_calls_there_is_an_empty_one():
    assert current_call() == Call()
