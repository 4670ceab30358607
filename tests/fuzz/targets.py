"""What is fuzzed: functions of bytes, which raise only where the code has an error.

Each takes any bytes; refusals by the errors that the code documents are no findings. What is accepted must keep a
promise that can be checked without knowing the input.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.conformance.api import mapping
from uhm_builder.errors import InvalidReference
from uhm_builder.sources.reference import parse_reference
from uhm_common.callers.identity import Identity
from uhm_common.callers.verifier import ACCESS, ALGORITHM, REFRESH, TYPES, TokenVerifier
from uhm_common.errors import Unauthenticated
from uhm_gateway.errors import BadRequest, MalformedTemplate, MethodNotAllowed, UnknownPath
from uhm_gateway.mapping.jsonstream import JsonSplitter
from uhm_gateway.mapping.match import Router
from uhm_gateway.mapping.template import Template, Wildcard, parse_template

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS", "Target", "signed", "verified"]

ISSUER, AUDIENCE, KEY_ID = "https://issuer.example", "uhmalguhm", "a-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`run` takes the bytes; `seeds` are where a fuzzer begins."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def template(data: bytes) -> None:
    """A template that parses matches the path that is written after it, and captures each of its variables."""
    text = data.decode(errors="replace")
    try:
        parsed = parse_template(text)
    except MalformedTemplate as error:
        if 0 <= error.position <= len(text):
            return
        raise
    router: Router[Template] = Router()
    router.add("GET", parsed, parsed)
    found = router.match("GET", _path_of(parsed))
    assert found.target is parsed
    assert len(found.captured) == len(parsed.variables)


def _path_of(parsed: Template) -> str:
    segments = ["x" if isinstance(each, Wildcard) else quote(each, safe="") for each in parsed.segments]
    return "/" + "/".join(segments) + (f":{quote(parsed.verb, safe='')}" if parsed.verb else "")


def bind(data: bytes) -> None:
    """A request that binds makes a message that goes over the wire and comes back the same.

    The first byte chooses a binding, then come the path variables, the query and the body, each after a zero byte. All
    of it is a path and a stream of JSON, too.
    """
    choice, *parts = data.split(b"\0")
    endpoints = [each for each in mapping().endpoints if each.binder.raw_body_field is None]
    endpoint = endpoints[(choice or b"\0")[0] % len(endpoints)]
    variables = len(endpoint.binding.template.variables)
    texts = [part.decode(errors="replace") for part in parts[:variables]]
    captured = texts + [""] * (variables - len(texts))
    query, body = [*parts[variables : variables + 2], b"", b""][:2]
    _match(data.decode(errors="replace"))
    assert _split(data, 1) == _split(data, len(data) + 1)
    try:
        message = endpoint.binder.bind(captured=captured, query=query.decode(errors="replace"), body=body)
    except BadRequest as error:
        str(error).encode()  # what an answer must be able to hold
        return
    wire = message.SerializeToString(deterministic=True)
    again = type(message).FromString(wire).SerializeToString(deterministic=True)
    assert again == wire, message


def _match(path: str) -> None:
    """A path is one of a binding, whose every variable it gives a text, or of none."""
    try:
        found = mapping().router.match("GET", path)
    except (BadRequest, UnknownPath, MethodNotAllowed):
        return
    assert len(found.captured) == len(found.target.binding.template.variables)


def _split(stream: bytes, size: int) -> list[bytes]:
    """The values of a stream that comes in pieces of a size."""
    splitter = JsonSplitter(limit=len(stream))
    values = [value for at in range(0, len(stream), size) for value in splitter.feed(stream[at : at + size])]
    return [*values, splitter.close()]


def token(data: bytes) -> None:
    """Nothing but what the key has signed is accepted, and of that only what has all claims right.

    The input is a token itself, and the header and claims of one that is signed.
    """
    text = data.decode(errors="replace")
    assert verified(text, kind=ACCESS) is None, text
    header, _, claims = data.partition(b"\0")
    ours = signed(header, claims)
    for kind in (ACCESS, REFRESH):
        found = verified(ours, kind=kind)
        if found is not None:
            assert isinstance(found["sub"], str)
            assert (found["iss"], found["aud"], found["type"]) == (ISSUER, AUDIENCE, kind)
            assert jwt.get_unverified_header(ours)["alg"] == ALGORITHM
            assert found["nbf"] <= time.time() + 60
            assert found["exp"] >= time.time() - 60
    _run(_identity(ours))


async def _identity(text: str) -> Identity | None:
    try:
        return await _verifier().identity({"authorization": f"Bearer {text}"})
    except Unauthenticated as error:
        str(error).encode(errors="backslashreplace")
        return None


def verified(text: str, *, kind: str) -> dict[str, Any] | None:
    try:
        return _run(_verifier().claims(text, kind=kind))
    except Unauthenticated:
        return None


def signed(header: bytes, claims: bytes) -> str:
    """A token with any header and any claims, whose signature is right."""
    signing_input = jwt.utils.base64url_encode(header) + b"." + jwt.utils.base64url_encode(claims)
    signature = _private_key().sign(signing_input)
    return (signing_input + b"." + jwt.utils.base64url_encode(signature)).decode()


class _Keys:
    """The public half of the only key."""

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        return _public_key() if key_id == KEY_ID else None


@cache
def _public_key() -> jwt.PyJWK:
    public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(_private_key().public_key()))
    return jwt.PyJWK({**public, "kid": KEY_ID, "alg": ALGORITHM})


@cache
def _private_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@cache
def _verifier() -> TokenVerifier:
    return TokenVerifier(_Keys(), issuer=ISSUER, audience=AUDIENCE)


def _run(coroutine: Any) -> Any:
    """Runs what has nothing to wait for, without the cost of a loop."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    message = "It waits for something."
    raise AssertionError(message)


def reference(data: bytes) -> None:
    """A reference that parses is written as one that means the same."""
    text = data.decode(errors="replace")
    name, _, tag = text.partition("\0")
    try:
        parsed = parse_reference(name, tag=tag)
    except InvalidReference as error:
        str(error).encode()
        return
    assert parse_reference(str(parsed)) == parsed, parsed


def _token_seeds() -> tuple[bytes, ...]:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000,
        "exp": 4_000_000_000,
        "jti": "1",
        "sub": "ada",
        "identity": "ada",
        "fresh": True,
        "sid": "s",
        "role": "user",
    }
    header = {"alg": ALGORITHM, "kid": KEY_ID}
    good = [
        json.dumps({**header, "typ": typ}).encode() + b"\0" + json.dumps({**claims, "type": kind}).encode()
        for kind, typ in TYPES.items()
    ]
    others = [
        json.dumps({**header, **odd}).encode() + b"\0" + json.dumps({**claims, "type": ACCESS, **bad}).encode()
        for odd in ({"alg": "none"}, {"alg": "HS256"}, {"kid": 1}, {"crit": ["b64"], "b64": False})
        for bad in ({"exp": 1}, {"nbf": 4_000_000_000}, {"aud": [AUDIENCE]}, {"sub": 5})
    ]
    deep = (b"[" * 2000, good[0].partition(b"\0")[0] + b"\0" + b"[" * 1900)
    return (*good, *others, *deep, b"e30.e30.", b"a.b.c", b"..", b"uhm_0123456789abcdef_")


def _bind_seeds() -> tuple[bytes, ...]:
    parts = (
        b"nested.text=x&texts=a&texts=b&counts[a]=1&time=2024-02-29T12:00:00Z&wait=1.5s&mask=a,bC&value={}",
        b'\0{"text":"x","big":"1","exact":1e3,"data":"aGk=","nested":{},"many":[{}],"wrapped":"7"}',
        b'\0{"any":{"@type":"type.googleapis.com/conformance.v1.Kinds"},"object":{"a":[null]}}',
        b'x\0y=z\0{"needed":"x","group":{"text":"a"},"closed":2}',
    )
    paths = (b"/v1/one/a%2Fb:re:watch", b"/v1/shelves/1/books/2", b"/v1/files/a/b:download", b"/v1/a%20b/x")
    return (*paths, *(bytes([number, 0]) + rest for number in range(64) for rest in parts))


TARGETS = {
    "template": Target(
        run=template,
        seeds=(
            b"/v1/{name=shelves/*/books/*}:read",
            b"/v1/{book.name=**}:a:b",
            b"/v1/**",
            b"/a%20b/{id}/*/x:y/{a.b=c}",
            b"/",
            b"/{",
            b"/%zz",
        ),
    ),
    "bind": Target(run=bind, seeds=_bind_seeds()),
    "token": Target(run=token, seeds=_token_seeds()),
    "reference": Target(
        run=reference,
        seeds=(
            b"nginx",
            b"ghcr.io/owner/name:tag@sha256:" + b"0" * 64,
            b"docker-daemon:a/b__c-d:1.0",
            b"storage:place/name",
            b"localhost:5000/x\0tag",
            b"[::1]:5000/x",
            b"index.docker.io/a",
        ),
    ),
}
