"""The keys that sign and verify tokens: Ed25519 (RFC 8032), shown as a JSON Web Key Set (RFC 7517, RFC 8037).

A key's id is its thumbprint (RFC 7638), so replicas that share a key agree on its id. To change keys, rename the
signing key to another name ending in `.pem` in its directory and restart: a new one is made, and what the old one has
signed stays good until the old file is deleted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from uhm_auth.errors import SigningKeyUnusable
from uhm_common.identity import ALGORITHM
from uhm_common.logs import get_logger

__all__ = ["KeyRing", "SigningKey", "load_keys", "thumbprint"]

log = get_logger()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and what is public of it."""

    private: Ed25519PrivateKey = field(repr=False)
    jwk: dict[str, str]

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> SigningKey:
        """With the public JWK of RFC 8037, section 2."""
        raw = private.public_key().public_bytes_raw()
        public = {"kty": "OKP", "crv": "Ed25519", "x": _base64url(raw)}
        return cls(private, {**public, "kid": thumbprint(public), "alg": ALGORITHM, "use": "sig"})

    @property
    def key_id(self) -> str:
        """The thumbprint."""
        return self.jwk["kid"]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The key that signs, and those that only verify; a KeySource for TokenVerifier."""

    signing: SigningKey
    retired: tuple[SigningKey, ...] = ()

    def public(self) -> list[dict[str, str]]:
        """The JSON Web Keys of all, the one that signs first."""
        return [key.jwk for key in (self.signing, *self.retired)]

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The public key of that id, or None."""
        return next((jwt.PyJWK(jwk) for jwk in self.public() if jwk["kid"] == key_id), None)


def thumbprint(jwk: dict[str, str]) -> str:
    """The thumbprint of an OKP key: SHA-256 of its required members in their canonical form (RFC 7638, section 3)."""
    required = {name: jwk[name] for name in ("crv", "kty", "x")}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def load_keys(path: Path, *, generate: bool) -> KeyRing:
    """Reads the signing key, making it first where it is absent and may be made, and the retired ones beside it.

    Raises SigningKeyUnusable. Several processes may do this at once: all end with the same key.
    """
    try:
        if generate and not path.exists():
            _generate(path)
        signing = _read(path)
        beside = sorted(other for other in path.parent.glob("*.pem") if other.name != path.name)
        return KeyRing(signing, tuple(_read(other) for other in beside))
    except OSError as error:
        raise SigningKeyUnusable(
            f"The signing key {path} cannot be used: {error.strerror}.",
            hint="Set UHM_SIGNING_KEY_FILE to an Ed25519 key in PKCS#8 PEM, or UHM_STATE_DIR to a directory that is"
            " yours to write.",
        ) from error


def _read(path: Path) -> SigningKey:
    if path.stat().st_mode & 0o007:
        log.warning("keys.readable_by_all", path=str(path))
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SigningKeyUnusable(f"{path} is not a private key in PEM form without a passphrase.") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SigningKeyUnusable(
            f"{path} is not an Ed25519 key.", hint="`openssl genpkey -algorithm ed25519` makes one."
        )
    return SigningKey.of(private)


def _generate(path: Path) -> None:
    """Writes a new key beside its name, then links it there: whoever comes first wins, and nobody reads half a key."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(handle)
        path.hardlink_to(staged)
    except FileExistsError:
        return
    finally:
        staged.unlink(missing_ok=True)
    log.info("keys.generated", path=str(path))


def _base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
