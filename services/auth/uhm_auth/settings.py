"""What the auth service is told from outside; the environment variables are `UHM_` and the names here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from uhm_auth.breached import BreachedPasswords
from uhm_auth.policy import Policy, Registration
from uhm_auth.throttle import Limits
from uhm_common.settings import Address, CommonSettings

__all__ = ["AuthSettings"]

DAY_SECONDS = 24 * 3600
CLOCKS_APART_SECONDS = 120
BOOTSTRAP_MIN_LENGTH = 20


class AuthSettings(CommonSettings):
    """Settings of the auth service."""

    listen: Address | None = Field(default=None, description="HOST:PORT to serve on; by default the auth address.")
    access_token_seconds: int = Field(
        default=15 * 60,
        gt=0,
        description="Lowered, it is so for new tokens; those that are out stay good for as long as they say, but"
        " what is revoked is remembered for the new time only.",
    )
    refresh_token_seconds: int = Field(
        default=30 * DAY_SECONDS,
        gt=0,
        description="How long a session lasts that is not refreshed. Lowered, it is so for sessions that begin, and for"
        " those that rotate from their next refresh on.",
    )
    longest_session_seconds: int = Field(
        default=180 * DAY_SECONDS,
        gt=0,
        description="How long a session lasts, however often it is refreshed. Lowered, sessions that rotate and are"
        " older end with their next refresh; the others last as long as they were to.",
    )
    refresh_grace_seconds: int = Field(
        default=10,
        ge=0,
        description="For how long a refresh token that was just replaced is answered with the one that replaced it.",
    )
    signing_key_file: Path | None = Field(
        default=None, description="Not used any more; the log says so where it is set. Keys are in the database."
    )
    signing_key_seconds: int = Field(
        default=30 * DAY_SECONDS, ge=0, description="How long a key signs before the next does; 0: until RotateKeys."
    )
    rotate_refresh_tokens: bool = Field(
        default=False, description="Every session rotates, whatever the login asks for."
    )
    registration: Registration = Field(
        default=Registration.OPEN, description="Who may register: open (everybody), invitation, or closed (nobody)."
    )
    bootstrap_invitation: SecretStr = Field(
        default=SecretStr(""),
        description="A code of at least 20 characters with which the first user registers where registration is not"
        " open; good for nobody else.",
    )
    password_min_length: int = Field(default=1, ge=1, le=256, description="In characters.")
    password_min_score: int = Field(
        default=0,
        ge=0,
        le=4,
        description="How hard to guess a password must be, from 0, anything, to 4, as zxcvbn estimates it.",
    )
    password_words: tuple[str, ...] = Field(
        default=(), description="Words that make a password easy to guess here, such as the name of the organisation."
    )
    breached_passwords: Path | None = Field(
        default=None,
        description="A file of passwords that nobody may choose: their SHA-1 in hexadecimal, one a line, in order.",
    )
    bcrypt_cost: int = Field(default=12, ge=4, le=31, description="The logarithm of the number of rounds.")
    bcrypt_threads: int = Field(default=2, ge=1, le=64)
    bcrypt_waiting: int = Field(default=64, ge=0, description="Passwords that may wait for a thread; more are refused.")
    throttle_pair_free: int = Field(
        default=5, ge=1, description="Failed logins of one username from one address before they have to wait."
    )
    throttle_username_free: int = Field(default=20, ge=1, description="The same of one username, from anywhere.")
    throttle_address_free: int = Field(default=100, ge=1, description="The same of one address, whoever they are for.")
    throttle_everywhere_free: int = Field(default=1000, ge=1, description="The same of the whole system.")
    throttle_longest_seconds: int = Field(
        default=900, ge=1, description="The longest wait between failed logins of one username from one address."
    )
    sessions_per_user: int = Field(
        default=1000,
        ge=1,
        description="How many sessions a user has at a time; one more ends the one that was used longest ago.",
    )
    api_keys_per_user: int = Field(default=100, ge=0)

    @field_validator("bootstrap_invitation")
    @classmethod
    def _unguessable(cls, code: SecretStr) -> SecretStr:
        if 0 < len(code.get_secret_value()) < BOOTSTRAP_MIN_LENGTH:
            message = f"a code of fewer than {BOOTSTRAP_MIN_LENGTH} characters can be guessed"
            raise ValueError(message)
        return code

    @field_validator("breached_passwords")
    @classmethod
    def _searchable(cls, path: Path | None) -> Path | None:
        if path is not None:
            _breached(path)
        return path

    @property
    def policy(self) -> Policy:
        """Who may register, and with what passwords."""
        return Policy(
            registration=self.registration,
            password_min_length=self.password_min_length,
            password_min_score=self.password_min_score,
            words=self.password_words,
            breached=frozenset() if self.breached_passwords is None else _breached(self.breached_passwords),
        )

    @property
    def told_seconds(self) -> int:
        """How long services must know of a session that was revoked: until no access token of it could be good."""
        return self.access_token_seconds + CLOCKS_APART_SECONDS

    @property
    def throttle_limits(self) -> Limits:
        """How many failures are free, and for how long the next ones wait; the rest is as `Limits` has it."""
        usual = Limits()
        return Limits(
            pair=replace(usual.pair, free=self.throttle_pair_free, longest_seconds=self.throttle_longest_seconds),
            username=replace(usual.username, free=self.throttle_username_free),
            address=replace(usual.address, free=self.throttle_address_free),
            everywhere=replace(usual.everywhere, free=self.throttle_everywhere_free),
        )

    @property
    def listen_address(self) -> str:
        """Where to serve."""
        return self.listen or self.auth_address


def _breached(path: Path) -> BreachedPasswords:
    """Raises ValueError where the file cannot be searched."""
    try:
        return BreachedPasswords(path)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ValueError(message) from error
