"""The keys that sign and verify tokens: Ed25519 (RFC 8032), shown as a JSON Web Key Set (RFC 7517, RFC 8037).

A key is made, and published, long before it signs: it is `next`, then it signs, then it is retired, and stays published
until all that it has signed has expired. Whoever fetches the set now and then therefore knows the key of every token.
All replicas read the keys from one database, where private parts are encrypted, and rotations come one after the other.
A replica that has not yet seen a rotation signs with the former key for a second more, which verifies all the same.

A key's id is its thumbprint (RFC 7638).
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from uhm_auth.audit import Event, append, entry
from uhm_auth.errors import SigningKeyUnusable
from uhm_auth.stores.signing_keys import KeyState, StoredKey
from uhm_common.callers.jwks import KeyCache
from uhm_common.callers.verifier import ALGORITHM
from uhm_common.errors import InternalError
from uhm_common.logs import get_logger
from uhm_common.repeating import repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uhm_auth.stores.signing_keys import SigningKeyStore
    from uhm_common.vault import Vault

__all__ = ["SigningKey", "SigningKeys", "thumbprint"]

log = get_logger()

POLL_SECONDS = 0.5
READ_AT_MOST_EVERY_SECONDS = 0.05  # for those who ask, however many they are
PUBLISHED = (KeyState.SIGNING, KeyState.NEXT, KeyState.RETIRED)
STRAGGLING_SECONDS = 60
"""For how long a replica that does not notice may sign with a key that was retired, clocks included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """The key that signs."""

    id: str
    private: Ed25519PrivateKey = field(repr=False)
    since: int


class SigningKeys:
    """The keys of this service, as its database has them."""

    def __init__(
        self,
        store: SigningKeyStore,
        vault: Vault,
        *,
        signing_seconds: int,
        token_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A key signs for `signing_seconds` (0: until `rotate`), and nothing that it signs is good for longer than
        `token_seconds`.
        """
        self._store = store
        self._vault = vault
        self._signing_seconds = signing_seconds
        self._token_seconds = token_seconds
        self._clock = clock
        self._signing: SigningKey | None = None
        self._published: list[dict[str, str]] = []
        self.verifying = KeyCache(self._read, interval_seconds=READ_AT_MOST_EVERY_SECONDS)

    @property
    def signing(self) -> SigningKey:
        """The key that signs now. Raises SigningKeyUnusable before `open`."""
        if self._signing is None:
            raise SigningKeyUnusable("No key that signs has been read.")
        return self._signing

    async def open(self) -> None:
        """Reads the keys, making the first ones. Raises SigningKeyUnusable where they were sealed with another key."""
        now = self._now()
        async with self._store.changing() as transaction:
            if not await self._store.find(transaction, now=now):
                for state in (KeyState.SIGNING, KeyState.NEXT):
                    await self._store.add(transaction, self._make(state, now=now), now=now)
        await self.verifying.refresh()

    async def published(self) -> list[dict[str, str]]:
        """The JSON Web Keys of all, the one that signs first, as the database has them now."""
        await self.verifying.renew()
        return self._published

    async def rotate(self, *, actor: str, reason: str, replacing: str = "") -> str:
        """Has the next key sign, and makes another one; answers the id of the key that signs.

        Where `replacing` is named and does not sign any more, somebody else has rotated: nothing is done.
        """
        now = self._now()
        async with self._store.changing() as transaction:
            keys = {key.state: key for key in await self._store.find(transaction, now=now)}
            signing, promoted = keys[KeyState.SIGNING], keys[KeyState.NEXT]
            if replacing and signing.id != replacing:
                return signing.id
            expires_at = now + self._token_seconds + STRAGGLING_SECONDS
            await self._store.retire(transaction, signing.id, now=now, expires_at=expires_at)
            await self._store.promote(transaction, promoted.id, now=now)
            await self._store.add(transaction, self._make(KeyState.NEXT, now=now), now=now)
            told = entry(Event.KEYS_ROTATED, username=actor, actor=actor, kid=promoted.id, reason=reason)
            await append(transaction, told)
        log.info("keys.rotated", kid=promoted.id, reason=reason)
        await self.verifying.refresh()
        return promoted.id

    async def tend(self) -> None:
        """Notices what other replicas did, and rotates when it is time."""
        await self.verifying.refresh()
        signing = self.signing
        if self._signing_seconds and self._now() - signing.since >= self._signing_seconds:
            await self.rotate(actor="", reason="schedule", replacing=signing.id)

    async def run(self) -> None:
        """Tends the keys until cancelled."""
        await repeat(self.tend, seconds=POLL_SECONDS, failed="keys.unread")

    async def forget_expired(self) -> int:
        """Deletes keys whose signatures have all expired; answers how many."""
        return await self._store.delete_expired(now=self._now())

    async def _read(self) -> Mapping[str, jwt.PyJWK]:
        """Reads all keys; the private one only where it is another than before."""
        keys = await self._store.all(now=self._now())
        for key in keys:
            if key.state is KeyState.SIGNING and (self._signing is None or self._signing.id != key.id):
                self._signing = self._unsealed(key)
        keys.sort(key=lambda key: PUBLISHED.index(key.state))
        self._published = [_jwk(key.public) for key in keys]
        return {jwk["kid"]: jwt.PyJWK(jwk) for jwk in self._published}

    def _unsealed(self, key: StoredKey) -> SigningKey:
        try:
            raw = self._vault.open(key.sealed or b"", purpose=_purpose(key.id))
        except InternalError as error:
            raise SigningKeyUnusable(
                "The signing keys in the database were encrypted with another key.",
                hint="Restore the file that UHM_KEY_FILE names, by default keys/auth.key in the state directory.",
            ) from error
        return SigningKey(id=key.id, private=Ed25519PrivateKey.from_private_bytes(raw), since=key.signing_at or 0)

    def _make(self, state: KeyState, *, now: int) -> StoredKey:
        private = Ed25519PrivateKey.generate()
        public = _base64url(private.public_key().public_bytes_raw())
        key_id = thumbprint({"kty": "OKP", "crv": "Ed25519", "x": public})
        return StoredKey(
            id=key_id,
            state=state,
            public=public,
            sealed=self._vault.seal(private.private_bytes_raw(), purpose=_purpose(key_id)),
            signing_at=now if state is KeyState.SIGNING else None,
        )

    def _now(self) -> int:
        return int(self._clock())


def thumbprint(jwk: Mapping[str, str]) -> str:
    """The thumbprint of an OKP key: SHA-256 of its required members in their canonical form (RFC 7638, section 3)."""
    required = {name: jwk[name] for name in ("crv", "kty", "x")}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _jwk(public: str) -> dict[str, str]:
    """The public JWK of RFC 8037, section 2."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": public}
    return {**jwk, "kid": thumbprint(jwk), "alg": ALGORITHM, "use": "sig"}


def _purpose(key_id: str) -> str:
    return f"signing key {key_id}"


def _base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
