"""Access tokens: what is let in, what is not, and where the keys come from."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from uhm_common import identity as identity_module
from uhm_common.errors import Unauthenticated, Unavailable
from uhm_common.identity import AuthServiceKeys, Identity, TokenVerifier, bearer_metadata, current_identity
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc


@pytest.fixture
def verifier(signer) -> TokenVerifier:
    return TokenVerifier(signer, issuer="test-issuer", audience="test-audience")


async def test_a_good_token_names_its_bearer(signer, verifier):
    token = signer.token()

    who = await verifier.identity({"authorization": f"Bearer {token}"})

    assert who == Identity(username="ann", session_id="s1", token=token)
    assert token not in repr(who)
    assert bearer_metadata(who) == [("authorization", f"Bearer {token}")]


@pytest.mark.parametrize("header", ["bearer {}", "BEARER {}", "Bearer  {} "])
async def test_the_scheme_is_compared_without_case(signer, verifier, header):
    who = await verifier.identity({"authorization": header.format(signer.token())})
    assert who.username == "ann"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "A token is needed."),
        ({"authorization": ""}, "A token is needed."),
        ({"authorization": "Bearer"}, "not `Bearer <token>`"),
        ({"authorization": "Bearer "}, "not `Bearer <token>`"),
        ({"authorization": "Basic YTpi"}, "not `Bearer <token>`"),
        ({"authorization": "Bearer nonsense"}, "not a JSON Web Token"),
        ({"authorization": "Bearer a.b.c"}, "not a JSON Web Token"),
    ],
)
async def test_headers_that_carry_no_token(verifier, metadata, message):
    with pytest.raises(Unauthenticated, match=message):
        await verifier.identity(metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": 1_000_000_000, "nbf": 999_999_000, "iat": 999_999_000}, "access token has expired"),
        ({"nbf": int(time.time()) + 3600}, "not yet valid"),
        ({"iss": "somebody-else"}, "Invalid issuer"),
        ({"aud": "somebody-else"}, "Audience"),
        ({"aud": ["somebody-else"]}, "Audience"),
        ({"type": "refresh"}, "This is a refresh token; an access token is needed."),
        ({"type": "nonsense"}, "This is another token; an access token is needed."),
        ({"sub": 7}, "Subject"),
        ({"kid": "other-key"}, "signed with a key that is not ours"),
        *[({name: None}, f'missing the "{name}" claim') for name in ("iss", "aud", "iat", "nbf", "exp", "jti", "sub")],
        ({"type": None}, 'missing the "type" claim'),
    ],
)
async def test_tokens_signed_by_us_that_are_not_good(signer, verifier, changes, message):
    with pytest.raises(Unauthenticated, match=message):
        await verifier.identity({"authorization": f"Bearer {signer.token(**changes)}"})


def forged(signer, header: dict, sign=lambda _: b"") -> str:
    """A token put together by hand; `sign` makes the signature."""

    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    signed = ".".join(part(json.dumps(value).encode()) for value in (header, signer.claims()))
    return f"{signed}.{part(sign(signed.encode()))}"


def hs256_with_the_public_key(signer, encoding: Encoding, form: PublicFormat) -> str:
    """The classic confusion: the public key, which everybody has, used as the secret of an HMAC."""
    secret = signer.private.public_key().public_bytes(encoding, form)
    header = {"alg": "HS256", "kid": "test-key"}
    return forged(signer, header, lambda signed: jwt.get_algorithm_by_name("HS256").sign(signed, secret))


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda s: forged(s, {"alg": "none", "kid": "test-key"}), id="alg none"),
        pytest.param(lambda s: forged(s, {"alg": "None", "kid": "test-key"}), id="alg None"),
        pytest.param(lambda s: forged(s, {"kid": "test-key"}), id="no alg"),
        pytest.param(lambda s: forged(s, {"alg": "EdDSA"}), id="no kid"),
        pytest.param(lambda s: forged(s, {"alg": "EdDSA", "kid": 7}), id="kid is a number"),
        pytest.param(lambda s: forged(s, {"alg": "EdDSA", "kid": "test-key"}), id="no signature"),
        pytest.param(
            lambda s: forged(s, {"alg": "EdDSA", "kid": "test-key"}, Ed25519PrivateKey.generate().sign),
            id="another key",
        ),
        pytest.param(
            lambda s: forged(s, {"alg": "EdDSA", "kid": "test-key", "jwk": s.jwk}, Ed25519PrivateKey.generate().sign),
            id="brings its own key",
        ),
        pytest.param(
            lambda s: hs256_with_the_public_key(s, Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), id="HS256 over PEM"
        ),
        pytest.param(lambda s: hs256_with_the_public_key(s, Encoding.Raw, PublicFormat.Raw), id="HS256 over raw"),
        pytest.param(lambda s: s.token()[:-4] + "AAAA", id="changed signature"),
    ],
)
async def test_forged_tokens(signer, verifier, forge):
    with pytest.raises(Unauthenticated):
        await verifier.identity({"authorization": f"Bearer {forge(signer)}"})


async def test_without_a_call_there_is_no_current_identity():
    with pytest.raises(Unauthenticated):
        current_identity()


class Auth(auth_pb2_grpc.AuthServiceServicer):
    """An auth service that only knows its keys."""

    def __init__(self, *jwks: dict[str, str]) -> None:
        self.jwks = list(jwks)
        self.asked = 0
        self.down = False

    async def GetKeys(self, request, context):  # noqa: ARG002, N802
        self.asked += 1
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return auth_pb2.GetKeysResponse(keys=[auth_pb2.JsonWebKey(**jwk) for jwk in self.jwks])


@pytest.fixture
async def auth(signer, serving):
    service = Auth(signer.jwk)
    async with serving(lambda server: auth_pb2_grpc.add_AuthServiceServicer_to_server(service, server)) as channel:
        yield service, AuthServiceKeys(channel)


async def test_keys_are_fetched_once_however_many_ask(auth, signer):
    service, keys = auth
    verifier = TokenVerifier(keys, issuer="test-issuer", audience="test-audience")

    await asyncio.gather(*(verifier.claims(signer.token(), kind="access") for _ in range(20)))

    assert service.asked == 1


async def test_unknown_key_ids_do_not_make_us_flood_the_auth_service(auth):
    service, keys = auth

    assert [await keys.key(f"unknown-{number}") for number in range(50)] == [None] * 50

    assert service.asked == 1


async def test_a_new_key_is_found_when_it_is_first_used(auth, signer, monkeypatch):
    service, keys = auth
    monkeypatch.setattr(identity_module, "KEYS_ASKED_AT_MOST_EVERY_SECONDS", 0.0)
    assert await keys.key("test-key") is not None

    service.jwks.append({**signer.jwk, "kid": "newer"})

    assert await keys.key("newer") is not None


async def test_known_keys_outlive_an_auth_service_that_is_down(auth, monkeypatch):
    service, keys = auth
    monkeypatch.setattr(identity_module, "KEYS_KEPT_SECONDS", 0.0)
    monkeypatch.setattr(identity_module, "KEYS_ASKED_AT_MOST_EVERY_SECONDS", 0.0)
    assert await keys.key("test-key") is not None

    service.down = True

    assert await keys.key("test-key") is not None
    with pytest.raises(Unavailable):
        await keys.key("unknown")


async def test_a_key_that_was_withdrawn_is_refused_once_the_kept_ones_are_old(auth, monkeypatch):
    service, keys = auth
    monkeypatch.setattr(identity_module, "KEYS_KEPT_SECONDS", 0.0)
    monkeypatch.setattr(identity_module, "KEYS_ASKED_AT_MOST_EVERY_SECONDS", 0.0)
    assert await keys.key("test-key") is not None

    service.jwks.clear()

    assert await keys.key("test-key") is None
