"""Tokens: what is signed, and that each is taken for what it is only."""

from __future__ import annotations

from dataclasses import replace

import jwt
import pytest

from uhm_auth.stores.sessions import Session
from uhm_common.callers.verifier import TokenVerifier
from uhm_common.errors import Unauthenticated

NOW = 1_800_000_000
SESSION = Session(
    id="s1",
    username="ann",
    role="admin",
    rotates=True,
    token_id="t1",
    token_issued_at=NOW - 50,
    created_at=NOW - 100,
    used_at=NOW - 50,
    expires_at=NOW + 5000,
)


@pytest.fixture
def verifier(keys) -> TokenVerifier:
    return TokenVerifier(keys.verifying, issuer="issuer", audience="audience", clock=lambda: NOW)


def unverified(token) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


async def test_a_refresh_token_is_the_same_each_time_it_is_asked_for(tokens):
    first = tokens.refresh(SESSION)
    assert tokens.refresh(SESSION) == first
    claims = unverified(first)
    assert (claims["jti"], claims["iat"], claims["exp"]) == ("t1", NOW - 50, NOW + 5000)
    assert tokens.refresh(replace(SESSION, token_id="t2")) != first


async def test_every_access_token_is_another(tokens):
    made = [unverified(tokens.access(SESSION, fresh=fresh, now=NOW)) for fresh in (True, False, False)]
    assert len({claims["jti"] for claims in made}) == 3
    assert [claims["fresh"] for claims in made] == [True, False, False]
    assert {claims["role"] for claims in made} == {"admin"}


@pytest.mark.parametrize(("left", "lifetime"), [(5000, 900), (30, 30)])
async def test_an_access_token_ends_with_its_session(tokens, left, lifetime):
    token = tokens.access(replace(SESSION, expires_at=NOW + left), fresh=False, now=NOW)
    assert unverified(token)["exp"] == NOW + lifetime


async def test_what_a_token_of_either_kind_says(tokens):
    access = await tokens.claims(tokens.access(SESSION, fresh=True, now=NOW))
    refresh = await tokens.claims(tokens.refresh(SESSION))
    assert [access.kind, refresh.kind] == ["access", "refresh"]
    for claims in (access, refresh):
        assert (claims.username, claims.session_id) == ("ann", "s1")
        assert (claims.issuer, claims.audience) == ("issuer", "audience")
    assert (refresh.token_id, refresh.issued_at, refresh.expires_at) == ("t1", NOW - 50, NOW + 5000)


async def test_only_a_refresh_token_refreshes(tokens):
    assert (await tokens.refresh_claims(tokens.refresh(SESSION))).token_id == "t1"
    with pytest.raises(Unauthenticated, match="a refresh token is needed"):
        await tokens.refresh_claims(tokens.access(SESSION, fresh=True, now=NOW))


@pytest.mark.parametrize("typ", ["rt+jwt", "at+jwt", None])
@pytest.mark.parametrize("kind", ["access", "refresh", "other"])
async def test_header_and_claims_must_agree(tokens, keys, typ, kind):
    """Signed by us, and yet only good where both say the same."""
    claims = unverified(tokens.refresh(SESSION)) | {"type": kind}
    token = jwt.encode(claims, keys.signing.private, algorithm="EdDSA", headers={"kid": keys.signing.id, "typ": typ})
    if (typ, kind) in {("rt+jwt", "refresh"), ("at+jwt", "access")}:
        assert (await tokens.claims(token)).kind == kind
    else:
        with pytest.raises(Unauthenticated):
            await tokens.claims(token)


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "é", "x" * 100_000, "e30.e30.e30"])
async def test_what_is_no_token(tokens, token):
    with pytest.raises(Unauthenticated):
        await tokens.claims(token)
