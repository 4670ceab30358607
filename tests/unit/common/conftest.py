"""Keys, tokens and servers for the tests of what all services share."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

ISSUER = "test-issuer"
AUDIENCE = "test-audience"
KEY_ID = "test-key"


@dataclass
class Signer:
    """Signs whatever it is told to, and is the KeySource that knows its own key."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def jwk(self) -> dict[str, str]:
        public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": KEY_ID, "alg": "EdDSA", "use": "sig"}

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        return jwt.PyJWK(self.jwk) if key_id == KEY_ID else None

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims that are good; a change to None leaves the claim out."""
        now = int(time.time())
        good = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 60, "jti": "j", "sub": "ann"}
        claims = good | {"identity": "ann", "fresh": True, "type": "access", "sid": "s1"} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, kid: str = KEY_ID, typ: str | None = "at+jwt", **changes: Any) -> str:
        headers = {"kid": kid, "typ": typ}
        return jwt.encode(self.claims(**changes), self.private, algorithm="EdDSA", headers=headers)


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def serving():
    """A context manager that serves over real gRPC on loopback and gives a channel to it."""

    @asynccontextmanager
    async def serve(add, *, interceptors=()):
        server = grpc.aio.server(interceptors=interceptors)
        add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(0)

    return serve
