"""The tables. Times are whole seconds since the epoch, where nothing else is said."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from uhm_common.outbox import outbox_table

__all__ = [
    "OUTBOX",
    "VERSION_TABLE",
    "ApiKeyRow",
    "AuditEventRow",
    "Base",
    "FailureRow",
    "InvitationRow",
    "PasswordResetRow",
    "RevocationRow",
    "SessionRow",
    "SigningKeyRow",
    "UserRow",
]

VERSION_TABLE = "auth_schema_version"
NUMBER = BigInteger().with_variant(Integer, "sqlite")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The schema of the auth service."""

    metadata = MetaData(naming_convention=NAMING)


class UserRow(Base):
    """A user; `password_hash` is what `uhm_auth.passwords` makes. A deleted user's row stays: nobody gets the name."""

    __tablename__ = "auth_users"

    id: Mapped[int] = mapped_column(NUMBER, primary_key=True, autoincrement=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16), server_default="user")
    created_at: Mapped[int] = mapped_column(BigInteger)
    login_at: Mapped[int | None] = mapped_column(BigInteger)
    disabled_at: Mapped[int | None] = mapped_column(BigInteger)
    deleted_at: Mapped[int | None] = mapped_column(BigInteger)


class SessionRow(Base):
    """What a login began.

    `token_id` is the `jti` of the refresh token that is good now, and `token_issued_at` its `iat`. Where the session
    rotates, `replaced_id` is the one before it, which was replaced at `replaced_at`.
    """

    __tablename__ = "auth_sessions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("auth_users.id", ondelete="CASCADE"), index=True)
    rotates: Mapped[bool]
    token_id: Mapped[str] = mapped_column(String(32))
    token_issued_at: Mapped[int] = mapped_column(BigInteger)
    replaced_id: Mapped[str | None] = mapped_column(String(32))
    replaced_at: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    address: Mapped[str] = mapped_column(String(200))
    user_agent: Mapped[str] = mapped_column(String(200))


class RevocationRow(Base):
    """A session or an API key that services must be told of, until no token of it could be good in any case."""

    __tablename__ = "auth_revocations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    revoked_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class SigningKeyRow(Base):
    """A key; `sealed` is its private part, encrypted, and is gone once the key no longer signs."""

    __tablename__ = "auth_signing_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    public: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[int] = mapped_column(BigInteger)
    signing_at: Mapped[int | None] = mapped_column(BigInteger)
    retired_at: Mapped[int | None] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)


class InvitationRow(Base):
    """Lets one user register; `code_hash` is the SHA-256 of its code."""

    __tablename__ = "auth_invitations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    creator: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class PasswordResetRow(Base):
    """Lets a user set a new password; one per user. `code_hash` is the SHA-256 of its code."""

    __tablename__ = "auth_password_resets"

    user_id: Mapped[int] = mapped_column(ForeignKey("auth_users.id", ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[str] = mapped_column(String(64))
    creator: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)


class ApiKeyRow(Base):
    """A key for machines; `secret_hash` is the SHA-256 of its secret part, `scopes` are separated by spaces."""

    __tablename__ = "auth_api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("auth_users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str] = mapped_column(String(1000))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[int | None] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class AuditEventRow(Base):
    """Something that happened; triggers refuse to change or delete it. `time` is in milliseconds, `details` is JSON."""

    __tablename__ = "auth_audit_events"

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True, autoincrement=True)
    time: Mapped[int] = mapped_column(BigInteger, index=True)
    event: Mapped[str] = mapped_column(String(40))
    actor: Mapped[str] = mapped_column(String(64))
    username: Mapped[str] = mapped_column(String(64), index=True)
    address: Mapped[str] = mapped_column(String(200))
    request_id: Mapped[str] = mapped_column(String(200))
    details: Mapped[str] = mapped_column(Text)


class FailureRow(Base):
    """Attempts that failed, counted by what they have in common, such as an address; see `uhm_auth.throttle`.

    Both times are in milliseconds. At `expires_at` nothing of the row would count any more.
    """

    __tablename__ = "auth_failures"

    bucket: Mapped[str] = mapped_column(String(80), primary_key=True)
    level: Mapped[float] = mapped_column(Double)
    last_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


OUTBOX = outbox_table(Base.metadata, name="auth_outbox")
