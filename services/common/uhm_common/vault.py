"""Secrets at rest: what services store of users' credentials is encrypted with a key that is not in the database.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits in front. What a secret is for is authenticated with it, so
that one user's cannot be put in the place of another's. Keys for other ends are derived from it with HKDF (RFC 5869).
"""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from uhm_common.errors import FailedPrecondition, InternalError
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Vault", "open_vault"]

log = get_logger()

KEY_BYTES = 32
NONCE_BYTES = 12


class Vault:
    """Encrypts and decrypts with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
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

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for that purpose, the same at every start, from which nothing follows for any other."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(self._key)


def open_vault(path: Path) -> Vault:
    """The vault of a key file of 32 bytes, made if absent.

    Raises InternalError for a file that is no key, FailedPrecondition where it can be neither read nor made.
    """
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
        if path.stat().st_mode & stat.S_IRWXO:
            log.warning("vault.readable_by_all", path=str(path))
    except OSError as error:
        raise FailedPrecondition(
            f"The key file {path} cannot be used: {error.strerror}.",
            hint="Set UHM_KEY_FILE to a file of 32 bytes, or UHM_STATE_DIR to a directory that is yours to write.",
        ) from error
    if len(key) != KEY_BYTES:
        raise InternalError(f"{path} has {len(key)} bytes, which are no key.", hint=f"A key has {KEY_BYTES} bytes.")
    return Vault(key)


def _make_key(path: Path) -> None:
    """Writes a new key beside its name, then links it there: nobody reads half a key, and who comes first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)
