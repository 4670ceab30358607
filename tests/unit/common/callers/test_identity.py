"""Who calls, and how that is passed on."""

from __future__ import annotations

import pytest

from uhm_common.callers.identity import Identity, bearer_metadata, bearer_token, current_identity
from uhm_common.errors import Unauthenticated


def test_a_token_is_passed_on_and_not_shown():
    who = Identity(username="ann", session_id="s1", token="secret")
    assert bearer_metadata(who) == [("authorization", "Bearer secret")]
    assert "secret" not in repr(who)


@pytest.mark.parametrize(("role", "rules"), [("user", False), ("admin", True), ("Admin", False), ("", False)])
def test_who_is_an_administrator(role, rules):
    assert Identity(username="ann", session_id="s1", token="t", role=role).is_admin is rules


@pytest.mark.parametrize("header", ["bearer abc", "BEARER abc", "Bearer  abc "])
def test_the_scheme_is_compared_without_case(header):
    assert bearer_token({"authorization": header}) == "abc"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "A token is needed."),
        ({"authorization": ""}, "A token is needed."),
        ({"authorization": "Bearer"}, "not `Bearer <token>`"),
        ({"authorization": "Bearer "}, "not `Bearer <token>`"),
        ({"authorization": "Basic YTpi"}, "not `Bearer <token>`"),
    ],
)
def test_headers_that_carry_no_token(metadata, message):
    with pytest.raises(Unauthenticated, match=message):
        bearer_token(metadata)


async def test_without_a_call_there_is_no_current_identity():
    with pytest.raises(Unauthenticated):
        current_identity()
