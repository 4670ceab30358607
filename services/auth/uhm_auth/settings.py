"""What the auth service is told from outside; the environment variables are `UHM_` and the names here."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from uhm_common.settings import Address, CommonSettings

__all__ = ["AuthSettings"]

DAY_SECONDS = 24 * 3600


class AuthSettings(CommonSettings):
    """Settings of the auth service."""

    listen: Address | None = Field(default=None, description="HOST:PORT to serve on; by default the auth address.")
    signing_key_file: Path | None = Field(
        default=None,
        description="The Ed25519 key that signs, as PKCS#8 PEM; replicas share one. By default one in the state"
        " directory, made at the first start. Other .pem files beside it go on verifying, but sign nothing.",
    )
    access_token_seconds: int = Field(default=15 * 60, gt=0)
    refresh_token_seconds: int = Field(default=30 * DAY_SECONDS, gt=0)
    rotate_refresh_tokens: bool = Field(
        default=False, description="Every session rotates, whatever the login asks for."
    )
    password_min_length: int = Field(default=1, ge=1, le=1024, description="In characters.")
    bcrypt_cost: int = Field(default=12, ge=4, le=31, description="The logarithm of the number of rounds.")
    bcrypt_threads: int = Field(default=2, ge=1, le=64)
    bcrypt_waiting: int = Field(default=64, ge=0, description="Passwords that may wait for a thread; more are refused.")

    @property
    def listen_address(self) -> str:
        """Where to serve."""
        return self.listen or self.auth_address

    @property
    def signing_key_path(self) -> Path:
        """Where the key that signs is, or will be."""
        return self.signing_key_file or self.state_dir / "auth" / "keys" / "signing.pem"
