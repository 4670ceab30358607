"""Secrets at rest: what services store of users' credentials is encrypted with a key that is not in the database.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits in front. What a secret is for is authenticated with it, so
that one user's cannot be put in the place of another's.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from uhm_common.errors import InternalError

__all__ = ["Vault", "open_vault"]

KEY_BYTES = 32
NONCE_BYTES = 12


class Vault:
    """Encrypts and decrypts with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: bytes, *, purpose: str) -> bytes:
        """The secret, encrypted; `purpose` must be the same when it is opened."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, purpose.encode())

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """The secret again. Raises InternalError where the key or the purpose is another, or it was changed."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise InternalError(
                f"A stored secret ({purpose}) cannot be decrypted.",
                hint="Was the key file replaced? Restore it, or store the credentials again.",
            ) from error


def open_vault(path: Path) -> Vault:
    """The vault of a key file of 32 bytes, made if absent. Raises InternalError for a file that is no key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        staged = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        try:
            handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # somebody was faster; theirs counts
                os.link(staged, path)
        finally:
            staged.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise InternalError(f"{path} has {len(key)} bytes, which are no key.", hint=f"A key has {KEY_BYTES} bytes.")
    return Vault(key)
