"""Access tokens and API keys: what is let in, and what is not."""

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

from uhm_common.callers import revocations as revocations_module
from uhm_common.callers import verifier as verifier_module
from uhm_common.callers.api_keys import VerifiedKey
from uhm_common.callers.identity import Identity
from uhm_common.callers.revocations import Revocation, Revoked
from uhm_common.callers.verifier import TokenVerifier, remote_verification
from uhm_common.errors import Unauthenticated, Unavailable
from uhm_common.settings import CommonSettings
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc, verification_pb2, verification_pb2_grpc

API_KEY = f"uhm_{'0' * 16}_{'x' * 43}"


class CountedKeys:
    """Keys that tell how often they were asked for, and may be withdrawn."""

    def __init__(self, signer) -> None:
        self._signer = signer
        self.asked: list[str] = []
        self.withdrawn = False

    async def key(self, key_id):
        self.asked.append(key_id)
        return None if self.withdrawn else await self._signer.key(key_id)


@pytest.fixture
def keys(signer) -> CountedKeys:
    return CountedKeys(signer)


@pytest.fixture
def make(keys):
    """Makes verifiers."""

    def make(**changes) -> TokenVerifier:
        return TokenVerifier(keys, **{"issuer": "test-issuer", "audience": "test-audience"} | changes)

    return make


@pytest.fixture
def verifier(make) -> TokenVerifier:
    return make()


def bearer(token) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_good_token_names_its_bearer(signer, verifier):
    token = signer.token()
    assert await verifier.identity(bearer(token)) == Identity(
        username="ann", session_id="s1", token=token, role="user", fresh=True
    )


async def test_what_a_token_says_of_its_bearer(signer, verifier):
    who = await verifier.identity(bearer(signer.token(role="admin", fresh=False, sid="s7")))
    assert (who.role, who.fresh, who.session_id, who.scopes) == ("admin", False, "s7", None)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
async def test_the_type_is_compared_as_a_media_type(signer, verifier, typ):
    """RFC 7515, section 4.1.9."""
    assert (await verifier.identity(bearer(signer.token(typ=typ)))).username == "ann"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": 1_000_000_000, "nbf": 999_999_000, "iat": 999_999_000}, "access token has expired"),
        ({"nbf": int(time.time()) + 3600}, "has not come yet"),
        ({"iat": int(time.time()) + 3600}, "has not come yet"),
        ({"iss": "somebody-else"}, "somebody else issued it"),
        ({"aud": "somebody-else"}, "for somebody else"),
        ({"aud": ["test-audience"]}, "aud is malformed"),
        ({"aud": ["somebody-else", "test-audience"]}, "aud is malformed"),
        ({"type": "refresh"}, "This is a refresh token; an access token is needed."),
        ({"type": "refresh", "typ": "rt+jwt"}, "This is a refresh token; an access token is needed."),
        ({"type": "nonsense"}, "This is another token; an access token is needed."),
        ({"type": ["access"]}, "type is malformed"),
        ({"typ": "rt+jwt"}, "typ is not at\\+jwt"),
        ({"typ": "JWT"}, "typ is not at\\+jwt"),
        ({"typ": None}, "typ is not at\\+jwt"),
        ({"sub": 7}, "sub is malformed"),
        ({"exp": "soon"}, "exp is malformed"),
        ({"exp": True}, "exp is malformed"),
        ({"exp": 10**400}, "exp is malformed"),
        ({"nbf": -1}, "nbf is malformed"),
        ({"exp": 1e12}, "exp is malformed"),
        ({"jti": 7}, "jti is malformed"),
        ({"kid": "other-key"}, "signed with a key that is not ours"),
        ({"kid": ""}, "signed with a key that is not ours"),
        ({"kid": "k" * 65}, "signed with a key that is not ours"),
        ({"more": "x" * 5000}, "longer than 4096"),
        *[({name: None}, f"missing the claim {name}") for name in ("iss", "aud", "iat", "nbf", "exp", "jti", "sub")],
        ({"type": None}, "missing the claim type"),
    ],
)
async def test_tokens_signed_by_us_that_are_not_good(signer, verifier, changes, message):
    for _ in range(2):  # a cache must not change anything
        with pytest.raises(Unauthenticated, match=message):
            await verifier.identity(bearer(signer.token(**changes)))


@pytest.mark.parametrize(("leeway", "good"), [(0, False), (30, True)])
@pytest.mark.parametrize("changes", [{"exp": -10}, {"nbf": +10}, {"iat": +10}], ids=["exp", "nbf", "iat"])
async def test_how_far_clocks_may_be_apart(signer, make, leeway, good, changes):
    now = int(time.time())
    verifier = make(leeway_seconds=leeway)
    token = signer.token(**{name: now + ahead for name, ahead in changes.items()})
    if good:
        assert (await verifier.identity(bearer(token))).username == "ann"
    else:
        with pytest.raises(Unauthenticated):
            await verifier.identity(bearer(token))


def part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(signer, header: dict, sign=lambda _: b"", claims: bytes = b"") -> str:
    """A token put together by hand; `sign` makes the signature."""
    header = {"typ": "at+jwt", **header}
    signed = f"{part(json.dumps(header).encode())}.{part(claims or json.dumps(signer.claims()).encode())}"
    return f"{signed}.{part(sign(signed.encode()))}"


def hs256_with_the_public_key(signer, encoding: Encoding, form: PublicFormat) -> str:
    """The classic confusion: the public key, which everybody has, used as the secret of an HMAC."""
    secret = signer.private.public_key().public_bytes(encoding, form)
    header = {"alg": "HS256", "kid": "test-key"}
    return forged(signer, header, lambda signed: jwt.get_algorithm_by_name("HS256").sign(signed, secret))


def with_last_character_changed(token: str) -> str:
    """Another spelling of the same signature: base64 has bits to spare in its last character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


OURS = {"alg": "EdDSA", "kid": "test-key"}
THEIRS = Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda s: forged(s, {"alg": "none", "kid": "test-key"}), id="alg none"),
        pytest.param(lambda s: forged(s, {"alg": "None", "kid": "test-key"}), id="alg None"),
        pytest.param(lambda s: forged(s, {"alg": ["EdDSA"], "kid": "test-key"}, s.private.sign), id="alg is a list"),
        pytest.param(lambda s: forged(s, {"alg": "Ed25519", "kid": "test-key"}, s.private.sign), id="alg by its name"),
        pytest.param(lambda s: forged(s, {"kid": "test-key"}, s.private.sign), id="no alg"),
        pytest.param(lambda s: forged(s, {"alg": "EdDSA"}, s.private.sign), id="no kid"),
        pytest.param(lambda s: forged(s, {"alg": "EdDSA", "kid": 7}, s.private.sign), id="kid is a number"),
        pytest.param(lambda s: forged(s, OURS), id="no signature"),
        pytest.param(lambda s: forged(s, OURS, THEIRS.sign), id="another key"),
        pytest.param(lambda s: forged(s, {**OURS, "jwk": s.jwk}, THEIRS.sign), id="brings its own key"),
        pytest.param(
            lambda s: forged(s, {**OURS, "jku": "http://127.0.0.1:9/"}, THEIRS.sign), id="says where keys are"
        ),
        pytest.param(lambda s: forged(s, {**OURS, "crit": ["exp"]}, s.private.sign), id="critical extensions"),
        pytest.param(lambda s: forged(s, {**OURS, "crit": []}, s.private.sign), id="empty crit"),
        pytest.param(lambda s: forged(s, {**OURS, "b64": False}, s.private.sign), id="b64 false"),
        pytest.param(lambda s: forged(s, OURS, s.private.sign, claims=b"[]"), id="claims are a list"),
        pytest.param(lambda s: forged(s, OURS, s.private.sign, claims=b"\xff"), id="claims are no text"),
        pytest.param(lambda s: forged(s, OURS, s.private.sign, claims=b"[" * 3000), id="deep claims"),
        pytest.param(
            lambda s: hs256_with_the_public_key(s, Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), id="HS256 over PEM"
        ),
        pytest.param(lambda s: hs256_with_the_public_key(s, Encoding.Raw, PublicFormat.Raw), id="HS256 over raw"),
        pytest.param(lambda s: s.token()[:-4] + "AAAA", id="changed signature"),
        pytest.param(lambda s: with_last_character_changed(s.token()), id="the signature spelled differently"),
        pytest.param(lambda s: s.token() + ".x", id="four parts"),
        pytest.param(lambda s: s.token() + "é", id="not ASCII"),
        pytest.param(lambda s: s.token() + "\udc80", id="not even Unicode"),
        pytest.param(lambda _: "nonsense", id="nonsense"),
        pytest.param(lambda _: "a.b.c", id="three letters"),
        pytest.param(lambda _: "." * 4000, id="dots"),
        pytest.param(lambda _: part(b"[" * 2900) + ".e30.e30", id="deep header"),
    ],
)
async def test_forged_tokens(signer, verifier, forge):
    with pytest.raises(Unauthenticated):
        await verifier.identity(bearer(forge(signer)))


async def test_what_a_header_says_of_keys_is_not_looked_at(signer, verifier):
    header = {**OURS, "jku": "http://127.0.0.1:9/", "jwk": {"kty": "oct"}, "x5u": "http://127.0.0.1:9/", "x5c": [""]}
    assert (await verifier.identity(bearer(forged(signer, header, signer.private.sign)))).username == "ann"


@pytest.mark.parametrize(
    "token", ["x" * 5000, "nonsense", part(b'{"alg":"HS256","kid":"k"}') + ".e30.e30"], ids=["long", "no", "alg"]
)
async def test_nobody_is_asked_for_the_key_of_what_cannot_be_a_token(verifier, keys, token):
    with pytest.raises(Unauthenticated):
        await verifier.identity(bearer(token))
    assert keys.asked == []


async def test_a_token_is_verified_once(signer, verifier, monkeypatch):
    token = signer.token()
    first = await verifier.identity(bearer(token))
    monkeypatch.setattr(verifier_module, "verified_payload", None)

    assert await verifier.identity(bearer(token)) == first


async def test_a_token_that_was_verified_expires(signer, make):
    now = [time.time()]
    verifier = make(clock=lambda: now[0])
    token = signer.token(exp=int(now[0]) + 1)
    await verifier.identity(bearer(token))
    assert await verifier.cached(token)

    now[0] += 7

    assert await verifier.cached(token) is None


async def test_a_token_that_was_verified_is_refused_once_its_key_is_withdrawn(signer, verifier, keys):
    token = signer.token()
    await verifier.identity(bearer(token))

    keys.withdrawn = True

    with pytest.raises(Unauthenticated, match="a key that is not ours"):
        await verifier.identity(bearer(token))


async def test_a_token_that_was_verified_is_refused_once_its_session_is_revoked(signer, verifier):
    await verifier.identity(bearer(signer.token()))
    verifier.revocations.add([Revocation(id="s1", expires_at=time.time() + 60)])

    for token in (signer.token(), signer.token(jti="another")):
        with pytest.raises(Revoked):
            await verifier.identity(bearer(token))
    assert await verifier.identity(bearer(signer.token(sid="s2")))


async def test_the_cache_is_bounded_and_keeps_what_is_used(signer, verifier, monkeypatch):
    monkeypatch.setattr(verifier_module, "CACHED_TOKENS", 3)
    used, *others = [signer.token(jti=str(number)) for number in range(5)]
    for token in [used, *others[:2], used, *others[2:]]:
        await verifier.identity(bearer(token))

    assert [await verifier.cached(token) is not None for token in (used, *others)] == [True, False, False, True, True]


class ApiKeys:
    """Knows one key."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down

    async def verify(self, key):
        if self.down:
            raise Unavailable("The auth service does not answer.")
        if key != API_KEY:
            raise Unauthenticated("The API key is not good.")
        return VerifiedKey(id="k1", username="ann", role="admin", scopes=frozenset({"images.read"}), expires_at=None)


async def test_an_api_key_names_its_owner(make):
    who = await make(api_keys=ApiKeys()).identity(bearer(API_KEY))
    assert who == Identity(
        username="ann", session_id="k1", token=API_KEY, role="admin", scopes=frozenset({"images.read"})
    )
    assert API_KEY not in repr(who)


async def test_api_keys_that_are_not_good(make):
    verifier = make(api_keys=ApiKeys())
    for key in ("uhm_", "uhm_x", API_KEY[:-1] + "y"):
        with pytest.raises(Unauthenticated):
            await verifier.identity(bearer(key))
    with pytest.raises(Unavailable):
        await make(api_keys=ApiKeys(down=True)).identity(bearer(API_KEY))
    with pytest.raises(Unauthenticated, match="not taken here"):
        await make().identity(bearer(API_KEY))


class Auth(auth_pb2_grpc.AuthServiceServicer, verification_pb2_grpc.VerificationServiceServicer):
    """An auth service that answers its keys at once, and tells what is revoked when the test says so."""

    def __init__(self, jwk) -> None:
        self.jwk = jwk
        self.telling = asyncio.Event()

    async def GetKeys(self, _request, _context):  # noqa: N802
        names = ("kid", "kty", "crv", "x", "alg", "use")
        return auth_pb2.GetKeysResponse(keys=[auth_pb2.JsonWebKey(**{name: self.jwk[name] for name in names})])

    async def WatchRevocations(self, _request, _context):  # noqa: N802
        await self.telling.wait()
        told = verification_pb2.Revocation(id="s1")
        told.expire_time.FromSeconds(int(time.time()) + 100)
        yield verification_pb2.WatchRevocationsResponse(revocations=[told])
        yield verification_pb2.WatchRevocationsResponse(complete=True)
        await asyncio.Event().wait()


async def test_a_service_that_has_just_started_lets_nobody_in_before_it_knows_who_is_out(signer, monkeypatch):
    monkeypatch.setattr(revocations_module, "TOLD_SECONDS", 0.1)
    auth, server = Auth(signer.jwk), grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(auth, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    settings = CommonSettings(auth_address=address, token_issuer="test-issuer", token_audience="test-audience")
    async with remote_verification(settings) as service:
        follower = asyncio.create_task(service.follower.run())
        for session in ("s1", "s2"):
            with pytest.raises(Unavailable):
                await service.verifier.identity(bearer(signer.token(sid=session)))

        monkeypatch.setattr(revocations_module, "TOLD_SECONDS", 30)
        auth.telling.set()

        with pytest.raises(Revoked):
            await service.verifier.identity(bearer(signer.token(sid="s1")))
        assert (await service.verifier.identity(bearer(signer.token(sid="s2")))).session_id == "s2"
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    await server.stop(0)


async def test_an_api_key_that_is_revoked(make):
    verifier = make(api_keys=ApiKeys())
    verifier.revocations.add([Revocation(id="k1", expires_at=time.time() + 60)])
    with pytest.raises(Revoked):
        await verifier.identity(bearer(API_KEY))
