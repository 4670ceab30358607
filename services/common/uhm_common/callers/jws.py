"""Signatures of tokens: JSON Web Signatures (RFC 7515, compact) by Ed25519 keys (RFC 8037), and nothing else.

PyJWT parses and compares; the signature itself is verified by libsodium, which takes half the time of OpenSSL. Keys are
looked up by `kid` among our own: what a header says of where to find others (`jku`, `jwk`, `x5u`, `x5c`) is not looked
at, and one with extensions that must be understood (`crit`) is refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from uhm_common.callers.identity import LOG_IN
from uhm_common.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALGORITHM", "MAX_TOKEN_LENGTH", "header_of", "verified_payload"]

ALGORITHM: Final = "EdDSA"
MAX_TOKEN_LENGTH: Final = 4096
CACHED: Final = 64


class _Ed25519(OKPAlgorithm):
    """EdDSA of PyJWT, verified by libsodium."""

    def verify(self, msg: str | bytes, key: Any, sig: str | bytes) -> bool:
        """Whether that is the key's signature of the message."""
        if not (isinstance(key, Ed25519PublicKey) and isinstance(msg, bytes) and isinstance(sig, bytes)):
            return False
        try:
            _sodium(key.public_bytes_raw()).verify(msg, sig)
        except (BadSignatureError, ValueError):  # the latter for a signature of another length
            return False
        return True


_jws = jwt.PyJWS(algorithms=[])
_jws.register_algorithm(ALGORITHM, _Ed25519())


def header_of(token: str) -> Mapping[str, Any]:
    """The header of what may be a token of ours, before anything about it was verified. Raises Unauthenticated."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise Unauthenticated(f"The token is longer than {MAX_TOKEN_LENGTH} characters.", hint=LOG_IN)
    if not token.isascii():
        raise _no_token()
    try:
        header = _parsed(token.partition(".")[0])
    except jwt.InvalidTokenError as error:
        raise _no_token() from error
    if header.get("alg") != ALGORITHM:
        raise Unauthenticated(f"The token is not signed with {ALGORITHM}.", hint=LOG_IN)
    if "crit" in header:
        raise Unauthenticated("The token has critical extensions, of which none is known.", hint=LOG_IN)
    return header


def verified_payload(token: str, key: jwt.PyJWK) -> bytes:
    """What a token says, if this key has signed it. Raises Unauthenticated."""
    try:
        verified = _jws.decode_complete(token, key.key, algorithms=[ALGORITHM])
    except jwt.DecodeError as error:
        raise Unauthenticated(f"The token is not valid: {error}.", hint=LOG_IN) from error
    except jwt.InvalidTokenError as error:
        raise _no_token() from error
    payload: bytes = verified["payload"]
    return payload


@lru_cache(CACHED)
def _parsed(header: str) -> Mapping[str, Any]:
    """What the first part of a token says: the same for all tokens of a kind and a key."""
    return _jws.get_unverified_header(f"{header}..")


@lru_cache(CACHED)
def _sodium(raw: bytes) -> VerifyKey:
    return VerifyKey(raw)


def _no_token() -> Unauthenticated:
    return Unauthenticated("The token is not a JSON Web Token.", hint=LOG_IN)
