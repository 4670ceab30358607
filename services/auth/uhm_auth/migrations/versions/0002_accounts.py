"""Roles, invitations, revocations, signing keys, API keys, the audit log and what is counted against guessing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FOREVER = ("UPDATE", "DELETE")


def upgrade() -> None:
    """Adds to both tables and makes the others; who registered first becomes an administrator. Sessions end."""
    op.add_column("auth_users", sa.Column("role", sa.String(16), nullable=False, server_default="user"))
    for name in ("login_at", "disabled_at", "deleted_at"):
        op.add_column("auth_users", sa.Column(name, sa.BigInteger(), nullable=True))
    op.execute("UPDATE auth_users SET role = 'admin' WHERE id = (SELECT MIN(id) FROM auth_users)")
    op.drop_table("auth_sessions")
    _create_sessions()
    _create_keys()
    _create_codes()
    _create_audit_events()
    op.create_table(
        "auth_failures",
        sa.Column("bucket", sa.String(80), nullable=False),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name="pk_auth_failures"),
    )
    op.create_index("ix_auth_failures_expires_at", "auth_failures", ["expires_at"])
    op.create_table(
        "auth_outbox",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("message_id", sa.String(100), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_auth_outbox"),
    )


def _create_sessions() -> None:
    op.create_table(
        "auth_sessions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", NUMBER, nullable=False),
        sa.Column("rotates", sa.Boolean(), nullable=False),
        sa.Column("token_id", sa.String(32), nullable=False),
        sa.Column("token_issued_at", sa.BigInteger(), nullable=False),
        sa.Column("replaced_id", sa.String(32), nullable=True),
        sa.Column("replaced_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("address", sa.String(200), nullable=False),
        sa.Column("user_agent", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_auth_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["auth_users.id"], name="fk_auth_sessions_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_auth_sessions_user_id", "auth_sessions", ["user_id"])
    op.create_index("ix_auth_sessions_expires_at", "auth_sessions", ["expires_at"])
    op.create_table(
        "auth_revocations",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_auth_revocations"),
    )
    op.create_index("ix_auth_revocations_expires_at", "auth_revocations", ["expires_at"])


def _create_keys() -> None:
    op.create_table(
        "auth_signing_keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("public", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("signing_at", sa.BigInteger(), nullable=True),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_auth_signing_keys"),
    )
    op.create_table(
        "auth_api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", NUMBER, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(1000), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_auth_api_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["auth_users.id"], name="fk_auth_api_keys_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_auth_api_keys_user_id", "auth_api_keys", ["user_id"])


def _create_codes() -> None:
    op.create_table(
        "auth_invitations",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("creator", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_auth_invitations"),
        sa.UniqueConstraint("code_hash", name="uq_auth_invitations_code_hash"),
    )
    op.create_index("ix_auth_invitations_expires_at", "auth_invitations", ["expires_at"])
    op.create_table(
        "auth_password_resets",
        sa.Column("user_id", NUMBER, nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("creator", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_auth_password_resets"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["auth_users.id"], name="fk_auth_password_resets_user_id", ondelete="CASCADE"
        ),
    )


def _create_audit_events() -> None:
    op.create_table(
        "auth_audit_events",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("address", sa.String(200), nullable=False),
        sa.Column("request_id", sa.String(200), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_auth_audit_events"),
    )
    op.create_index("ix_auth_audit_events_time", "auth_audit_events", ["time"])
    op.create_index("ix_auth_audit_events_username", "auth_audit_events", ["username"])
    if op.get_bind().dialect.name == "sqlite":
        for change in FOREVER:
            op.execute(
                f"CREATE TRIGGER auth_audit_events_refuse_{change.lower()} BEFORE {change} ON auth_audit_events"
                " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
        op.execute(  # INSERT OR REPLACE deletes without a DELETE
            "CREATE TRIGGER auth_audit_events_refuse_replace BEFORE INSERT ON auth_audit_events"
            " WHEN EXISTS (SELECT 1 FROM auth_audit_events WHERE number = NEW.number)"
            " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION auth_audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER auth_audit_events_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON auth_audit_events"
        " FOR EACH STATEMENT EXECUTE FUNCTION auth_audit_events_refuse()"
    )


def downgrade() -> None:
    """Is not supported: the audit log is kept for good."""
    message = "there is no way back from 0002"
    raise NotImplementedError(message)
